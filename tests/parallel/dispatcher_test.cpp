// Tokens to their experts and back, on one to four ranks with uneven and empty counts.
#include "parallel/expert/dispatcher.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/adjoint.h"
#include "tests/support/gradcheck.h"
#include "tests/support/skewed_routing.h"

namespace switchyard::test {
namespace {

constexpr int64_t kTokens = 13, kTopK = 3, kExperts = 6, kHidden = 4;

Dispatcher dispatcher_on(const Group& group, int64_t experts = kExperts) {
  return {Axis{group, group}, experts, std::make_shared<ExchangeMeter>(), "layer 0"};
}

// Every weight is `weight`.
Dispatched dispatched(const Dispatcher& dispatcher, const Var& x, const std::vector<int32_t>& expert,
                      double weight, int64_t experts = kExperts) {
  const auto pairs = static_cast<int64_t>(expert.size()), tokens = x.dim(0), top_k = pairs / tokens;
  const Tensor chosen = Tensor::from(expert, {tokens, top_k});
  const Var weights(Tensor::from(std::vector<double>(pairs, weight), {tokens, top_k}));
  return dispatcher.dispatch(x, weights, chosen, sort_by_expert(chosen, experts));
}

std::vector<int32_t> skewed_experts(Skew skew, int rank) {
  return skewed_routing(skew, kTokens, kTopK, kExperts, static_cast<uint32_t>(rank + 1)).expert;
}

struct Case {
  int ranks;
  Skew skew;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.ranks << " ranks, skew " << static_cast<int>(c.skew);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int ranks = 1; ranks <= 4; ++ranks) {
    for (const Skew skew : kAllSkews) all.push_back({ranks, skew});
  }
  return all;
}

class DispatcherTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Skews, DispatcherTest, testing::ValuesIn(cases()));

TEST_P(DispatcherTest, ThereAndBackIsTheIdentityWithItsGradient) {
  run_ranks(GetParam().ranks, [](const Group& group) {
    const Dispatcher dispatcher = dispatcher_on(group);
    const Var x(random_tensor({kTokens, kHidden}, 5 + group->rank()), true);
    const Dispatched sent =
        dispatched(dispatcher, x, skewed_experts(GetParam().skew, group->rank()), 1.0 / kTopK);
    const Var y = dispatcher.collect(sent.rows, sent);
    EXPECT_LT(relative_error(y.value(), x.value()), 1e-15);
    const Tensor seed = random_tensor(x.shape(), 50 + group->rank());
    backward(y, seed);
    EXPECT_LT(relative_error(x.grad(), seed), 1e-15);
  });
}

// <dispatch x, y> = <x, combine y> over all ranks, exact in whole numbers; and the
// gradient of each is the other.
TEST_P(DispatcherTest, DispatchAndCombineAreTransposes) {
  run_ranks(GetParam().ranks, [](const Group& group) {
    const Dispatcher dispatcher = dispatcher_on(group);
    const Var x(whole_numbers(kTokens, kHidden, group->rank()), true);
    const Dispatched sent = dispatched(dispatcher, x, skewed_experts(GetParam().skew, group->rank()), 1);
    const Var y(whole_numbers(sent.rows.dim(0), kHidden, 10 + group->rank()), true);
    const Var combined = dispatcher.collect(y, sent);
    EXPECT_EQ(dot(sent.rows.value(), y.value(), group), dot(x.value(), combined.value(), group));

    backward(combined, x.value());
    EXPECT_EQ(y.grad().to_vector<double>(), sent.rows.value().to_vector<double>());
    backward(sent.rows, y.value());
    EXPECT_EQ(x.grad().to_vector<double>(), combined.value().to_vector<double>());
  });
}

// A row says whence it comes: source rank, token. Within an expert: by rank, then by token.
TEST_P(DispatcherTest, RowsLieByExpertThenRankThenToken) {
  run_ranks(GetParam().ranks, [](const Group& group) {
    const Dispatcher dispatcher = dispatcher_on(group);
    auto tokens_of = [](int rank) {
      std::vector<double> rows;
      for (int64_t t = 0; t < kTokens; ++t) rows.insert(rows.end(), {double(rank), double(t), 0, 0});
      return rows;
    };
    const Var x(Tensor::from(tokens_of(group->rank()), {kTokens, kHidden}));
    const Dispatched sent = dispatched(dispatcher, x, skewed_experts(GetParam().skew, group->rank()), 1);
    std::vector<double> expected;
    std::vector<int64_t> offsets{0};
    for (int64_t e = 0; e < dispatcher.local_experts(); ++e) {
      for (int r = 0; r < group->size(); ++r) {
        const auto routing =
            skewed_routing(GetParam().skew, kTokens, kTopK, kExperts, static_cast<uint32_t>(r + 1));
        for (int64_t pair = 0; pair < kTokens * kTopK; ++pair) {
          if (routing.expert[pair] != dispatcher.expert(e)) continue;
          expected.insert(expected.end(), {double(r), double(pair / kTopK), 0, 0});
        }
      }
      offsets.push_back(static_cast<int64_t>(expected.size()) / kHidden);
    }
    EXPECT_EQ(sent.rows.value().to_vector<double>(), expected);
    EXPECT_EQ(sent.groups.offsets.to_vector<int64_t>(), offsets);
  });
}

// A token whose choices are all on one rank is one row there, whatever their number.
TEST(Dispatcher, ATokenTravelsOnceToEachRank) {
  run_ranks(2, [](const Group& group) {
    const Dispatcher dispatcher = dispatcher_on(group, 4);
    const Var x(random_tensor({3, kHidden}, 5 + group->rank()));
    const Dispatched sent = dispatched(dispatcher, x, {0, 1, 2, 3, 1, 2}, 1, 4);
    EXPECT_EQ(sent.send, (Counts{2, 2}));
    EXPECT_EQ(sent.recv, (Counts{2, 2}));
    EXPECT_EQ(sent.rows.dim(0), 6);
  });
}

// d loss / d weight comes back from the ranks of the experts: the dot product of the token's gradient and the
// expert's output, which is the token itself here.
TEST_P(DispatcherTest, WeightsGetTheirGradient) {
  run_ranks(GetParam().ranks, [](const Group& group) {
    const Dispatcher dispatcher = dispatcher_on(group);
    std::vector<int32_t> experts = skewed_experts(GetParam().skew, group->rank());
    experts[1] = -1;
    const Tensor chosen = Tensor::from(experts, {kTokens, kTopK});
    const Var x(whole_numbers(kTokens, kHidden, group->rank()));
    const Var weight(random_tensor({kTokens, kTopK}, 3), true);
    const Dispatched sent = dispatcher.dispatch(x, weight, chosen, sort_by_expert(chosen, kExperts));
    const Tensor seed = whole_numbers(kTokens, kHidden, 10 + group->rank());
    backward(dispatcher.collect(sent.rows, sent), seed);
    const auto token = x.value().to_vector<double>(), dy = seed.to_vector<double>();
    std::vector<double> expected;
    for (int64_t pair = 0; pair < kTokens * kTopK; ++pair) {
      const auto row = token.begin() + pair / kTopK * kHidden;
      const double slope = std::inner_product(row, row + kHidden, dy.begin() + pair / kTopK * kHidden, 0.0);
      expected.push_back(pair == 1 ? 0 : slope);
    }
    EXPECT_EQ(weight.grad().to_vector<double>(), expected);
  });
}

TEST(Dispatcher, SpreadsExpertsThatTheRanksDoNotDivide) {
  run_ranks(2, [](const Group& group) {
    const Dispatcher three = dispatcher_on(group, 3), five = dispatcher_on(group, 5);
    EXPECT_EQ(three.local_experts(), group->rank() == 0 ? 1 : 2);
    EXPECT_EQ(five.local_experts(), group->rank() == 0 ? 2 : 3);
    EXPECT_EQ(five.expert(0), group->rank() == 0 ? 0 : 2);
  });
}

// Rank 0's tokens all go to rank 1's expert, and so do rank 1's: rank 0 receives no row.
TEST(Dispatcher, ARankWithoutRowsTakesPart) {
  run_ranks(2, [](const Group& group) {
    const Dispatcher dispatcher = dispatcher_on(group, 2);
    const Var x(random_tensor({3, kHidden}, 5 + group->rank()), true);
    const Dispatched sent = dispatched(dispatcher, x, {1, 1, 1}, 1, 2);
    EXPECT_EQ(sent.rows.dim(0), group->rank() == 0 ? 0 : 6);
    const Var y = dispatcher.collect(sent.rows, sent);
    EXPECT_EQ(y.value().to_vector<double>(), x.value().to_vector<double>());
    backward(y, x.value());
    EXPECT_EQ(x.grad().to_vector<double>(), x.value().to_vector<double>());
  });
}

TEST(Dispatcher, ARankThatDroppedEverythingTakesPart) {
  run_ranks(3, [](const Group& group) {
    const Dispatcher dispatcher = dispatcher_on(group, 3);
    const Var x(random_tensor({2, kHidden}, 5 + group->rank()), true);
    const bool drops = group->rank() == 1;
    const Dispatched sent = dispatched(dispatcher, x, drops ? std::vector{-1, -1} : std::vector{0, 2}, 1, 3);
    const Var y = dispatcher.collect(sent.rows, sent);
    backward(y, x.value());
    const std::vector<double> expected =
        drops ? std::vector<double>(2 * kHidden) : x.value().to_vector<double>();
    EXPECT_EQ(y.value().to_vector<double>(), expected);
    EXPECT_EQ(x.grad().to_vector<double>(), expected);
  });
}

}  // namespace
}  // namespace switchyard::test
