// Which experts are copied to which ranks. That training is the same with copies: moe_layer_test.cpp and
// tests/trainer/layout_test.cpp.
#include "parallel/expert/shadows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace switchyard::test {
namespace {

using Counts = std::vector<int64_t>;

// Four experts on two ranks; each row: one rank's tokens.
Shadows chosen(const Counts& counts, int64_t min_pairs, const Slots& slots = {0, 1, 2, 3}) {
  return choose_shadows(slots, counts, 2, min_pairs);
}

TEST(Shadows, AFullRanksExpertIsCopiedToTheOther) {
  // Loads 400 and 200. Rank 1's 90 pairs with expert 1 come nearest to the 100 that would even them out.
  EXPECT_EQ(chosen({150, 100, 60, 40, 60, 90, 50, 50}, 80), (Shadows{{1, 1}}));
  // What is spared is 90, not 91.
  EXPECT_EQ(chosen({150, 100, 60, 40, 60, 90, 50, 50}, 90), (Shadows{{1, 1}}));
  EXPECT_TRUE(chosen({150, 100, 60, 40, 60, 90, 50, 50}, 91).empty());
}

TEST(Shadows, CopiesAreOfSlotsWhateverStandsThere) {
  EXPECT_EQ(chosen({100, 150, 60, 40, 90, 60, 50, 50}, 80, {1, 0, 2, 3}), (Shadows{{1, 1}}));
}

TEST(Shadows, EvenLoadsNeedNone) { EXPECT_TRUE(chosen(Counts(8, 1000), 1).empty()); }

// Rank 1 has no token for rank 0's experts: it can take none of its work.
TEST(Shadows, ARankTakesItsOwnTokensAlone) { EXPECT_TRUE(chosen({500, 500, 0, 0, 0, 0, 10, 10}, 1).empty()); }

TEST(Shadows, ARankTakesAQuarterOfWhatItHolds) {
  EXPECT_EQ(most_shadows(1), 1);
  EXPECT_EQ(most_shadows(4), 1);
  EXPECT_EQ(most_shadows(17), 4);
  Counts counts(32, 0);  // 16 experts on two ranks; all tokens go to the first eight
  for (int64_t e = 0; e < 8; ++e) counts[e] = counts[16 + e] = 100;
  EXPECT_EQ(choose_shadows(first_slots(16), counts, 2, 1), (Shadows{{0, 1}, {1, 1}}));
}

// Whatever the loads: a copy is on another rank than the expert, and no rank has become fuller than the
// fullest was.
TEST(Shadows, NeverMakeTheFullestFuller) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 300; ++trial) {
    const int ranks = 2 + trial % 4;
    const int64_t experts = ranks * (1 + trial % 5) + trial % 3;
    Counts counts(ranks * experts);
    for (int64_t& n : counts) n = random() % 100 < 20 ? random() % 1000 : random() % 100;
    Counts load(ranks);
    const auto owner = [&](int64_t e) { return rank_of(e, experts, ranks); };
    for (int r = 0; r < ranks; ++r)
      for (int64_t e = 0; e < experts; ++e) load[owner(e)] += counts[r * experts + e];
    const int64_t before = *std::max_element(load.begin(), load.end());
    Counts copies(ranks);
    const Shadows shadows = choose_shadows(first_slots(experts), counts, ranks, 10);
    for (const Shadow& s : shadows) {
      ASSERT_NE(owner(s.slot), s.host);
      load[owner(s.slot)] -= counts[s.host * experts + s.slot];
      load[s.host] += counts[s.host * experts + s.slot];
      ++copies[s.host];
    }
    const int64_t after = *std::max_element(load.begin(), load.end());
    ASSERT_LE(after, shadows.empty() ? before : before - 10);
    for (int r = 0; r < ranks; ++r)
      ASSERT_LE(copies[r],
                most_shadows(first_expert(experts, ranks, r + 1) - first_expert(experts, ranks, r)));
  }
}

}  // namespace
}  // namespace switchyard::test
