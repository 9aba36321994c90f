#include "kernels/dispatch.h"

#include <array>
#include <numeric>

#include "tests/support/kernel_test.h"
#include "tests/support/skewed_routing.h"

namespace switchyard::kernels {
namespace {

using Experts = std::vector<int32_t>;

template <class A>
Experts drop(Experts expert, std::vector<A> weight, int64_t top_k, int64_t experts, int64_t capacity,
             DropPolicy policy) {
  const int64_t tokens = static_cast<int64_t>(expert.size()) / top_k;
  std::vector<char> workspace(DropOverCapacity<A>::workspace_bytes(tokens, top_k, experts));
  run(Cpu{}, DropOverCapacity<A>{expert.data(), weight.data(), tokens, top_k, experts, capacity, policy,
                                 workspace.data()});
  return expert;
}

// Lets the pairs in one by one, best first.
template <class A>
Experts expected_drop(Experts expert, const std::vector<A>& weight, int64_t top_k, int64_t experts,
                      int64_t capacity, DropPolicy policy) {
  std::vector<size_t> line(expert.size());
  std::iota(line.begin(), line.end(), 0);
  std::sort(line.begin(), line.end(), [&](size_t p, size_t q) {
    const A wp = policy == DropPolicy::kProbs ? weight[p] : A(0),
            wq = policy == DropPolicy::kProbs ? weight[q] : A(0);
    return std::tuple(-wp, p % top_k, p / top_k) < std::tuple(-wq, q % top_k, q / top_k);
  });
  std::vector<int64_t> taken(experts);
  for (size_t p : line)
    if (taken[expert[p]]++ >= capacity) expert[p] = -1;
  return expert;
}

TEST(Drop, KeepsExactlyTheExpectedPairs) {
  for (Skew skew : kAllSkews) {
    for (int64_t capacity : {0, 1, 20, 61, 1000}) {
      for (DropPolicy policy : {DropPolicy::kProbs, DropPolicy::kPosition}) {
        const SkewedRouting r = skewed_routing(skew, 300, 3, 16, 5);
        auto weight = random_values<float>(900, 6);
        for (float& w : weight) w = std::round(w * 10);  // many ties
        EXPECT_EQ(drop(r.expert, weight, 3, 16, capacity, policy),
                  expected_drop(r.expert, weight, 3, 16, capacity, policy));
        EXPECT_EQ(drop(r.expert, std::vector<double>(weight.begin(), weight.end()), 3, 16, capacity, policy),
                  expected_drop(r.expert, weight, 3, 16, capacity, policy));
      }
    }
  }
}

TEST(Drop, FirstChoicesComeBeforeSecondChoices) {
  const Experts expert = {1, 0, 0, 1, 0, 1};  // token 0 wants 0 second
  const std::vector<float> weight(6, 0.5f);
  EXPECT_EQ(drop(expert, weight, 2, 2, 2, DropPolicy::kPosition), (Experts{1, -1, 0, 1, 0, -1}));
  EXPECT_EQ(drop(expert, weight, 2, 2, 2, DropPolicy::kProbs), (Experts{1, -1, 0, 1, 0, -1}));
}

TEST(Drop, ProbsKeepsTheHighestWeights) {
  EXPECT_EQ(drop<float>({0, 0, 0, 0}, {0.1f, 0.9f, 0.9f, 0.5f}, 1, 1, 2, DropPolicy::kProbs),
            (Experts{-1, 0, 0, -1}));
  EXPECT_EQ(drop<float>({0, 0, 0, 0}, {0.1f, NAN, 0.2f, 0.5f}, 1, 1, 3, DropPolicy::kProbs),
            (Experts{0, -1, 0, 0}));
}

TEST(Drop, RoundingDoesNotDecide) {
  const float w = 0.3f, above = std::nextafter(w, 1.0f);
  EXPECT_EQ(drop<float>({0, 0, 0}, {w, above, w}, 1, 1, 2, DropPolicy::kProbs), (Experts{0, 0, -1}));
  EXPECT_EQ(drop<float>({0, 0, 0}, {w, w, above}, 1, 1, 2, DropPolicy::kProbs), (Experts{0, 0, -1}));
}

TEST(Drop, NoTokens) { EXPECT_TRUE(drop<float>({}, {}, 2, 4, 1, DropPolicy::kProbs).empty()); }

struct Sorted {
  std::vector<int64_t> counts, offsets;
  Experts position, source;
  bool operator==(const Sorted&) const = default;
};

Sorted sort_by_expert(const Experts& expert, int64_t experts) {
  const int64_t pairs = static_cast<int64_t>(expert.size());
  Sorted s{std::vector<int64_t>(experts, -5), std::vector<int64_t>(experts + 1, -5), Experts(pairs, -5),
           Experts(pairs, -5)};
  std::vector<char> workspace(SortByExpert::workspace_bytes(pairs, experts));
  run(Cpu{}, SortByExpert{s.counts.data(), s.offsets.data(), s.position.data(), s.source.data(),
                          expert.data(), pairs, experts, workspace.data()});
  return s;
}

Sorted expected_sort(const Experts& expert, int64_t experts) {
  Sorted s{std::vector<int64_t>(experts), {0}, Experts(expert.size(), -1), {}};
  for (int32_t e = 0; e < experts; ++e) {
    for (size_t p = 0; p < expert.size(); ++p) {
      if (expert[p] != e) continue;
      s.position[p] = static_cast<int32_t>(s.source.size());
      s.source.push_back(static_cast<int32_t>(p));
      ++s.counts[e];
    }
    s.offsets.push_back(static_cast<int64_t>(s.source.size()));
  }
  s.source.resize(expert.size(), -1);
  return s;
}

TEST(SortByExpertTest, IsStableAndLeavesDroppedPairsOut) {
  for (Skew skew : kAllSkews) {
    for (int64_t tokens : {0, 1, 511, 512, 1500}) {
      const SkewedRouting r = skewed_routing(skew, tokens, 2, 9, 3);
      EXPECT_EQ(sort_by_expert(r.expert, 9), expected_sort(r.expert, 9));
      const Experts kept = drop(r.expert, r.weight, 2, 9, 40, DropPolicy::kProbs);
      EXPECT_EQ(sort_by_expert(kept, 9), expected_sort(kept, 9));
    }
  }
  const Experts none(100, -1);
  EXPECT_EQ(sort_by_expert(none, 3), expected_sort(none, 3));
}

TEST(SortByExpertTest, SameForEveryNumberOfThreads) {
  const SkewedRouting r = skewed_routing(Skew::kZipf, 20000, 2, 7, 3);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] { return sort_by_expert(r.expert, 7); });
  };
  EXPECT_EQ(result(1), result(3));
}

// Routed rows and their weights: tokens x top_k pairs, some of them dropped.
struct Yard {
  int64_t tokens, top_k, experts, cols;
  SkewedRouting routing = skewed_routing(Skew::kZipf, tokens, top_k, experts, 8);
  Sorted sorted = sort_by_expert(
      drop(routing.expert, routing.weight, top_k, experts, tokens* top_k / experts, DropPolicy::kProbs),
      experts);
  int64_t rows() const { return tokens * top_k; }
};

template <class T>
class RowMovement : public testing::Test {};
using Types = testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(RowMovement, Types);

TYPED_TEST(RowMovement, GatherCopiesTokensToRows) {
  const Yard yard{50, 3, 8, 33};
  const auto x = random_values<TypeParam>(50 * 33, 1);
  std::vector<TypeParam> y(yard.rows() * 33, TypeParam(7.0f)), expected(y.size(), TypeParam(0.0f));
  for (int64_t r = 0; r < yard.rows(); ++r)
    for (int64_t c = 0; c < 33 && yard.sorted.source[r] >= 0; ++c)
      expected[r * 33 + c] = x[yard.sorted.source[r] / 3 * 33 + c];
  run(Cpu{}, GatherRows<TypeParam>{y.data(), x.data(), yard.sorted.source.data(), yard.rows(), 33, 3});
  EXPECT_TRUE(same_bits(y, expected));
}

TYPED_TEST(RowMovement, CombineIsTheWeightedSum) {
  for (const bool weighted : {true, false}) {
    const Yard yard{41, 4, 8, 301};
    const auto x = random_values<TypeParam>(yard.rows() * 301, 1);
    const auto w = random_values<Acc<TypeParam>>(yard.rows(), 2);
    std::vector<TypeParam> y(41 * 301);
    std::vector<double> expected(y.size());
    for (int64_t p = 0; p < yard.rows(); ++p)
      for (int64_t c = 0; c < 301 && yard.sorted.position[p] >= 0; ++c)
        expected[p / 4 * 301 + c] +=
            (weighted ? to_double(w[p]) : 1) * to_double(x[yard.sorted.position[p] * 301 + c]);
    run(Cpu{}, CombineForward<TypeParam>{y.data(), x.data(), yard.sorted.position.data(),
                                         weighted ? w.data() : nullptr, 41, 4, 301});
    expect_close(y, expected);
  }
}

TYPED_TEST(RowMovement, SameBitsForEveryNumberOfThreads) {
  const Yard yard{200, 2, 8, 131};
  const auto x = random_values<TypeParam>(yard.rows() * 131, 1), dy = random_values<TypeParam>(200 * 131, 2);
  const auto w = random_values<Acc<TypeParam>>(yard.rows(), 3);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      std::vector<TypeParam> y(200 * 131), dx(x.size());
      std::vector<Acc<TypeParam>> dw(w.size());
      const int32_t *position = yard.sorted.position.data(), *source = yard.sorted.source.data();
      run(Cpu{}, CombineForward<TypeParam>{y.data(), x.data(), position, w.data(), 200, 2, 131});
      run(Cpu{}, CombineBackward<TypeParam>{dx.data(), dw.data(), dy.data(), x.data(), position, source,
                                            w.data(), 200, 2, 400, 131});
      return std::tuple{y, dx, dw};
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_TRUE(same_bits(std::get<0>(one), std::get<0>(three)));
  EXPECT_TRUE(same_bits(std::get<1>(one), std::get<1>(three)));
  EXPECT_TRUE(same_bits(std::get<2>(one), std::get<2>(three)));
}

TEST(RowMovement, UnweightedCombineIsTheTransposeOfGather) {
  const Yard yard{30, 2, 5, 9};
  const auto x = random_values<double>(30 * 9, 1), r = random_values<double>(60 * 9, 2);
  std::vector<double> gathered(60 * 9), combined(30 * 9);
  run(Cpu{}, GatherRows<double>{gathered.data(), x.data(), yard.sorted.source.data(), 60, 9, 2});
  run(Cpu{},
      CombineForward<double>{combined.data(), r.data(), yard.sorted.position.data(), nullptr, 30, 2, 9});
  EXPECT_NEAR(dot_of(gathered, r), dot_of(x, combined), 1e-12);
}

TEST(CombineGradient, MatchesFiniteDifferences) {
  const Yard yard{12, 2, 3, 5};
  auto x = random_values<double>(24 * 5, 1), w = random_values<double>(24, 2);
  const auto dy = random_values<double>(12 * 5, 3);
  std::vector<double> y(60), dx(x.size(), 7), dw(24, 7);
  const int32_t *position = yard.sorted.position.data(), *source = yard.sorted.source.data();
  const auto loss = [&] {
    run(Cpu{}, CombineForward<double>{y.data(), x.data(), position, w.data(), 12, 2, 5});
    return dot_of(y, dy);
  };
  run(Cpu{}, CombineBackward<double>{dx.data(), dw.data(), dy.data(), x.data(), position, source, w.data(),
                                     12, 2, 24, 5});
  expect_close(dx, numeric_gradient(x, loss), kNumericTolerance);
  expect_close(dw, numeric_gradient(w, loss), kNumericTolerance);
  EXPECT_LT(yard.sorted.offsets.back(), 24);  // there were drops
}

}  // namespace
}  // namespace switchyard::kernels
