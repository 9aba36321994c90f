// Which rank holds which experts, and how they are moved.
#include "parallel/expert/slots.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "parallel/comm/make.h"

namespace switchyard::test {
namespace {

using Loads = std::vector<int64_t>;

TEST(Slots, OverloadIsTheFullestRanksSurplus) {
  EXPECT_EQ(rank_overload({0, 1, 2, 3}, {30, 30, 10, 10}, 2), 0.5);
  EXPECT_EQ(rank_overload({0, 2, 1, 3}, {30, 30, 10, 10}, 2), 0);
  EXPECT_EQ(rank_overload({0, 1, 2, 3}, {5, 0, 0, 0}, 1), 0);
  EXPECT_EQ(rank_overload({0, 1, 2, 3}, {0, 0, 0, 0}, 2), 0);
}

TEST(Slots, BalancedSlotsAreAPermutationAndNeverFuller) {
  std::mt19937 random(3);
  for (const int ranks : {1, 2, 3, 8}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      Loads load(16);
      for (int64_t& n : load) n = static_cast<int64_t>(random() % 1000);
      Slots slots = first_slots(16);
      std::shuffle(slots.begin(), slots.end(), random);
      const Slots better = balanced_slots(slots, load, ranks);
      EXPECT_TRUE(is_permutation(better));
      EXPECT_LE(rank_overload(better, load, ranks), rank_overload(slots, load, ranks));
      EXPECT_EQ(balanced_slots(better, load, ranks), better);  // and that is all it can do
    }
  }
}

TEST(Slots, FullExpertsAreSpread) {
  const Loads first_are_full = {40, 30, 20, 10, 4, 3, 2, 1};
  for (const int ranks : {2, 4}) {
    const double before = rank_overload(first_slots(8), first_are_full, ranks);
    const Slots better = balanced_slots(first_slots(8), first_are_full, ranks);
    // With four ranks the fullest expert alone is half as much again as a rank's even share.
    EXPECT_LT(rank_overload(better, first_are_full, ranks), ranks == 2 ? 0.02 : 0.55);
    EXPECT_GT(before, ranks == 2 ? 0.8 : 1.5);
  }
}

TEST(Slots, EqualLoadsStayWhereTheyAre) {
  EXPECT_EQ(balanced_slots(first_slots(6), Loads(6, 7), 3), first_slots(6));
  EXPECT_EQ(balanced_slots(first_slots(6), Loads(6, 0), 3), first_slots(6));
}

// Every row says which expert it is; seven experts, so that ranks hold different numbers.
TEST(Slots, RowsFollowTheirExperts) {
  for (const int ranks : {1, 2, 3, 4}) {
    run_ranks(ranks, [](const Group& group) {
      const Axis ep{group, group};
      const int64_t begin = first_expert(7, ep.size(), ep.rank()),
                    end = first_expert(7, ep.size(), ep.rank() + 1);
      const auto rows_of = [&](const Slots& slots) {
        std::vector<float> rows;
        for (int64_t s = begin; s < end; ++s)
          for (int part = 0; part < 6; ++part) rows.push_back(static_cast<float>(100 * slots[s] + part));
        return rows;
      };
      std::mt19937 random(5);
      Slots from = first_slots(7);
      const Tensor x = Tensor::from(rows_of(from), {end - begin, 2, 3});
      for (int move = 0; move < 5; ++move) {
        Slots to = from;
        std::shuffle(to.begin(), to.end(), random);
        move_rows({6, x, 0, nullptr}, from, to, ep);
        EXPECT_EQ(x.to_vector<float>(), rows_of(to));
        from = to;
      }
    });
  }
}

// Two ranks hold the rows of each half of the experts: a run with three elements before the rows and eight
// behind them, cut in the middle of a row.
TEST(Slots, RowsInPartsFollowTheirExperts) {
  run_ranks(4, [](const Group& world) {
    const Mesh mesh = make_mesh(world, 2, Device::kCpu);
    const Slots from = first_slots(6), to = {4, 1, 5, 2, 0, 3};
    const auto run_of = [&](const Slots& slots) {
      std::vector<float> run = {-1, -2, -3};
      for (int64_t s = 3 * mesh.ep.rank(); s < 3 * mesh.ep.rank() + 3; ++s)
        for (int part = 0; part < 5; ++part) run.push_back(static_cast<float>(100 * slots[s] + part));
      for (int i = 0; i < 8; ++i) run.push_back(-4);
      return run;
    };
    const int64_t half = 13 * mesh.edp.rank();
    const Tensor held = Tensor::from(run_of(from), {26}).slice(half, {13});
    move_rows({5, held, half - 3, mesh.edp.device}, from, to, mesh.ep);
    EXPECT_EQ(held.to_vector<float>(), Tensor::from(run_of(to), {26}).slice(half, {13}).to_vector<float>());
  });
}

}  // namespace
}  // namespace switchyard::test
