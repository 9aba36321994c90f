// The router, the balance losses, capacity, sorting and the row movements.
#include "kernels/routing.h"

#include "kernels/balance.h"
#include "kernels/dispatch.h"
#include "kernels/gate_noise.h"
#include "kernels/load_sums.h"
#include "kernels/rank_rows.h"
#include "tests/cuda_emulated/sides.h"

namespace switchyard::kernels {
namespace {

template <class A>
class Routing : public CudaKernelsOf<A> {};
TYPED_TEST_SUITE(Routing, AccTypes);

template <class T>
class RowMovements : public CudaKernelsOf<T> {};
TYPED_TEST_SUITE(RowMovements, FloatTypes);

const RouteRule kRules[] = {
    {.experts = 8, .top_k = 2},
    {.experts = 5, .top_k = 5, .pre_softmax = true},
    {.experts = 40, .top_k = 6, .pre_softmax = true, .normalize = true, .scaling = 2.5f},
    {.experts = 64, .top_k = 8, .score = ScoreFunction::kSigmoid, .normalize = true},
    {.experts = 100, .top_k = 1, .score = ScoreFunction::kSigmoid},
    {.experts = 160, .top_k = 6, .pre_softmax = true, .num_groups = 8, .group_topk = 3},
    {.experts = 512,
     .top_k = 16,
     .score = ScoreFunction::kSigmoid,
     .normalize = true,
     .num_groups = 8,
     .group_topk = 4},
    {.experts = 6, .top_k = 2, .force_balance = true},
};

template <class A, class B>
void route(B& bench, const RouteRule& rule, int64_t tokens, bool bias) {
  const int64_t scores = tokens * rule.experts, pairs = tokens * rule.top_k;
  // Quarters: scores that tie.
  auto logits = random_vector<A>(scores, 1, -8, 8);
  for (A& z : logits) z = std::round(z) / 4;
  A* s = bench.template output<A>(scores);
  int32_t* expert = bench.template output<int32_t>(pairs);
  A* weight = bench.template output<A>(pairs);
  run(bench.on(),
      RouteForward<A>{s, expert, weight, bench.template output<A>(tokens), bench.input(logits),
                      bias ? bench.input(random_vector<A>(rule.experts, 2)) : nullptr, tokens, rule});
  run(bench.on(), RouteBackward<A>{bench.template output<A>(scores), bench.input(random_vector<A>(pairs, 3)),
                                   bias ? nullptr : bench.input(random_vector<A>(scores, 4)), s, expert,
                                   weight, tokens, rule});
}

TYPED_TEST(Routing, Router) {
  for (const RouteRule& rule : kRules)
    for (bool bias : {false, true}) {
      SCOPED_TRACE(concat(rule.experts, " experts, bias ", bias));
      expect_same([&](auto& bench) { route<TypeParam>(bench, rule, 7, bias); });
    }
}

TYPED_TEST(Routing, RouterWithoutTokens) {
  expect_same([&](auto& bench) { route<TypeParam>(bench, kRules[0], 0, true); });
}

TYPED_TEST(Routing, RouterChoosesDistinctExpertsFromNaN) {
  using A = TypeParam;
  const RouteRule rule{.experts = 9, .top_k = 3};
  expect_same([&](auto& bench) {
    const std::vector<A> logits(9, std::numeric_limits<A>::quiet_NaN());
    run(bench.on(),
        RouteForward<A>{bench.input(logits), bench.template output<int32_t>(3),
                        bench.input(std::vector<A>(3)), nullptr, bench.input(logits), nullptr, 1, rule});
  });
}

TYPED_TEST(Routing, Balance) {
  using A = TypeParam;
  using Loss = std::conditional_t<std::is_same_v<A, double>, double, BF16>;  // the rest of a cancellation
  struct Case {
    int64_t tokens, experts, segments;
  };
  for (auto [tokens, experts, segments] :
       {Case{12, 6, 1}, Case{12, 6, 3}, Case{80, 200, 2}, Case{600, 10, 2}, Case{4, 1, 1}, Case{0, 4, 1}})
    for (auto kind : {BalanceKind::kSwitch, BalanceKind::kKl, BalanceKind::kCv, BalanceKind::kEntropy})
      expect_same([&, tokens = tokens, experts = experts, segments = segments](auto& bench) {
        const A* scores = bench.input(random_vector<A>(tokens * experts, 1, 0.1f, 1));
        A* dmean = bench.template output<A>(segments * experts);
        run(bench.on(),
            BalanceForward<A>{bench.template output<A, Loss>(1), dmean,
                              bench.template output<A>(segments * experts), scores,
                              bench.input(random_indices(tokens * 2, 2, 0, static_cast<int>(experts) - 1)),
                              tokens, experts, 2, segments, kind, A(0.01),
                              bench.input(std::vector<A>(BalanceForward<A>::kBlocks * segments * experts))});
        run(bench.on(),
            BalanceBackward<A>{bench.template output<A>(tokens * experts), bench.input(std::vector<A>{A(3)}),
                               dmean, scores, tokens, experts, segments});
      });
}

TYPED_TEST(Routing, BalanceOfGivenShares) {
  using A = TypeParam;
  using Loss = std::conditional_t<std::is_same_v<A, double>, double, BF16>;
  for (int64_t experts : {6, 1100})
    for (int64_t segments : {1, 3})
      expect_same([=](auto& bench) {
        A* dmean = bench.template output<A>(segments * experts);
        run(bench.on(),
            BalanceForward<A>{bench.template output<A, Loss>(1), dmean,
                              bench.template output<A>(segments * experts),
                              bench.input(random_vector<A>(12 * experts, 1, 0.1f, 1)),
                              bench.input(random_indices(24, 2, 0, static_cast<int>(experts) - 1)), 12,
                              experts, 2, segments, BalanceKind::kSwitch, A(0.01), nullptr,
                              bench.input(random_vector<A>(experts, 3, -0.1f, 0.1f))});
      });
}

TYPED_TEST(Routing, GateNoise) {
  using A = TypeParam;
  for (int64_t n : {0, 1, 37, 4099})
    expect_same([=](auto& bench) {
      const A *spread = bench.input(random_vector<A>(n, 1, -9, 9)),
              *noise = bench.input(random_vector<A>(n, 2));
      run(bench.on(), GateNoiseForward<A>{bench.template output<A>(n), bench.input(random_vector<A>(n, 3)),
                                          spread, noise, n});
      run(bench.on(), GateNoiseBackward<A>{bench.template output<A>(n), bench.input(random_vector<A>(n, 4)),
                                           spread, noise, n});
    });
}

TEST_F(CudaKernels, LoadSums) {
  for (const int64_t experts : {1, 8, 300})
    expect_same([=](auto& bench) {
      std::vector<double> sums(2 * experts + 1, 7);
      std::vector<int64_t> assigned(experts), kept(experts);
      for (int64_t e = 0; e < experts; ++e) assigned[e] = 3 * e + 1, kept[e] = 2 * e;
      run(bench.on(), AddLoads{bench.template output<double>(sums), bench.input(assigned), bench.input(kept),
                               experts, 41});
    });
}

TYPED_TEST(Routing, ZLoss) {
  using A = TypeParam;
  for (int64_t tokens : {0, 1, 37})
    for (int64_t experts : {1, 8, 130})
      expect_same([=](auto& bench) {
        const A* z = bench.input(random_vector<A>(tokens * experts, 1, -5, 5));
        A* lse = bench.template output<A>(tokens);
        run(bench.on(), ZLossForward<A>{bench.template output<A>(1), lse, z, tokens, experts, A(0.1)});
        run(bench.on(), ZLossBackward<A>{bench.template output<A>(tokens * experts),
                                         bench.input(std::vector<A>{A(2)}), lse, z, tokens, experts, A(0.1)});
      });
}

TYPED_TEST(Routing, DropOverCapacity) {
  using A = TypeParam;
  constexpr int64_t kTokens = 700, kTopK = 3, kExperts = 4;
  auto weight = random_vector<A>(kTokens * kTopK, 1);
  for (A& w : weight) w = std::round(w * 20) / 20;  // many ties, and both zeros
  for (DropPolicy policy : {DropPolicy::kProbs, DropPolicy::kPosition})
    for (int64_t capacity : {0, 1, 100, 520, 5000})
      expect_same([&](auto& bench) {
        using Drop = DropOverCapacity<A>;
        run(bench.on(), Drop{.expert = bench.template output<int32_t>(
                                 random_indices(kTokens * kTopK, 2, -1, kExperts - 1)),
                             .weight = bench.input(weight),
                             .tokens = kTokens,
                             .top_k = kTopK,
                             .experts = kExperts,
                             .capacity = capacity,
                             .policy = policy,
                             .workspace = bench.workspace(Drop::workspace_bytes(kTokens, kTopK, kExperts))});
      });
}

TEST_F(CudaKernels, SortByExpert) {
  for (int64_t pairs : {0, 1, 33, 1024, 5000})
    for (int64_t experts : {1, 7, 200})
      expect_same([=](auto& bench) {
        run(bench.on(),
            SortByExpert{.counts = bench.template output<int64_t>(experts),
                         .offsets = bench.template output<int64_t>(experts + 1),
                         .position = bench.template output<int32_t>(pairs),
                         .source = bench.template output<int32_t>(pairs),
                         .expert = bench.input(random_indices(pairs, 1, -1, static_cast<int>(experts) - 1)),
                         .pairs = pairs,
                         .experts = experts,
                         .workspace = bench.workspace(SortByExpert::workspace_bytes(pairs, experts))});
      });
}

TEST_F(CudaKernels, RowsForRanks) {
  // Experts 0, 3, 4 are at home on rank 1, the others on ranks 0 and 2.
  const std::vector<int32_t> home = {1, 0, 2, 1, 1}, local = {0, 0, 0, 1, 2};
  for (int64_t tokens : {0, 1, 300})
    for (int64_t top_k : {1, 3})
      expect_same([&](auto& bench) {
        const int64_t rows = tokens * 2;
        const int32_t* expert = bench.input(random_indices(tokens * top_k, 1, -1, 4));
        const int32_t *at = bench.input(home), *place = bench.input(local);
        run(bench.on(),
            RanksOfTokens{bench.template output<int32_t>(tokens * 3), expert, at, tokens, top_k, 3});
        run(bench.on(),
            ChoicesOfRows{bench.template output<int32_t>(rows * top_k),
                          bench.input(random_indices(rows, 2, 0, static_cast<int>(tokens * 3) - 1)), expert,
                          at, place, rows, top_k, 3});
        run(bench.on(),
            TotalsOfRanks{bench.template output<int64_t>(6), bench.input(std::vector<int64_t>{7, 0, 9}),
                          bench.input(std::vector<int64_t>{1, 20, 300, 4000, 50000}), at, 5, 3});
      });
}

TYPED_TEST(RowMovements, GatherAndCombine) {
  using T = TypeParam;
  using A = Acc<T>;
  constexpr int64_t kTokens = 5, kTopK = 2, kRows = kTokens * kTopK;
  // Pair 3 and pair 8 are dropped; the last two rows hold nothing.
  const std::vector<int32_t> position = {4, 0, 1, -1, 7, 2, 3, 5, -1, 6};
  const std::vector<int32_t> source = {1, 2, 5, 6, 0, 7, 9, 4, -1, -1};
  for (int64_t cols : {1, 8, 21, 2056})
    for (bool weighted : {false, true})
      expect_same([&](auto& bench) {
        const T* rows = bench.input(random_vector<T>(kRows * cols, 1));
        const T* tokens = bench.input(random_vector<T>(kTokens * cols, 2));
        const A* weight = weighted ? bench.input(random_vector<A>(kRows, 3)) : nullptr;
        const int32_t *at = bench.input(position), *from = bench.input(source);
        run(bench.on(),
            GatherRows<T>{bench.template output<T>(kRows * cols), tokens, from, kRows, cols, kTopK});
        run(bench.on(), CombineForward<T>{bench.template output<T>(kTokens * cols), rows, at, weight, kTokens,
                                          kTopK, cols});
        run(bench.on(), CombineBackward<T>{bench.template output<T>(kRows * cols),
                                           weighted ? bench.template output<A>(kRows) : nullptr, tokens, rows,
                                           at, from, weight, kTokens, kTopK, kRows, cols});
      });
}

}  // namespace
}  // namespace switchyard::kernels
