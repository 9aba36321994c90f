#include "kernels/routing.h"

#include <numeric>
#include <set>

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

template <class A>
struct Router {
  RouteRule rule;
  std::vector<A> logits;
  std::vector<A> bias = {};
  int64_t tokens = static_cast<int64_t>(logits.size()) / rule.experts;
  std::vector<A> scores = std::vector<A>(logits.size()), entropy = std::vector<A>(tokens);
  std::vector<A> weight = std::vector<A>(tokens * rule.top_k), dlogits = scores;
  std::vector<int32_t> expert = std::vector<int32_t>(tokens * rule.top_k, -7);

  void forward() {
    run(Cpu{}, RouteForward<A>{scores.data(), expert.data(), weight.data(), entropy.data(), logits.data(),
                               bias.empty() ? nullptr : bias.data(), tokens, rule});
  }
  void backward(const A* dweight, const A* dscores) {
    run(Cpu{}, RouteBackward<A>{dlogits.data(), dweight, dscores, scores.data(), expert.data(), weight.data(),
                                tokens, rule});
  }
};

using Experts = std::vector<int32_t>;

// Sorts what RouteForward picks one by one.
Experts choose(const std::vector<double>& key, const RouteRule& rule) {
  const int64_t size = rule.experts / rule.num_groups;
  const auto falling = [](const std::vector<double>& k, Experts items) {
    std::stable_sort(items.begin(), items.end(), [&](int32_t a, int32_t b) { return k[a] > k[b]; });
    return items;
  };
  std::vector<double> group_key;
  Experts groups(rule.num_groups), candidates;
  std::iota(groups.begin(), groups.end(), 0);
  for (int32_t g : groups) {
    std::vector<double> keys(key.begin() + g * size, key.begin() + (g + 1) * size);
    std::sort(keys.rbegin(), keys.rend());
    group_key.push_back(
        std::accumulate(keys.begin(), keys.begin() + rule.top_k / rule.group_topk % (size + 1), 0.0));
  }
  if (rule.num_groups > 1) groups = falling(group_key, groups);
  if (rule.num_groups > 1) groups.resize(rule.group_topk);
  std::sort(groups.begin(), groups.end());
  for (int32_t g : groups)
    for (int64_t e = g * size; e < (g + 1) * size; ++e) candidates.push_back(static_cast<int32_t>(e));
  candidates = falling(key, candidates);
  candidates.resize(rule.top_k);
  return candidates;
}

std::vector<RouteRule> rules(int64_t experts, int64_t top_k) {
  std::vector<RouteRule> all;
  for (ScoreFunction score : {ScoreFunction::kSoftmax, ScoreFunction::kSigmoid})
    for (bool pre : {true, false})
      for (bool normalize : {true, false}) all.push_back({experts, top_k, score, pre, normalize, 2.5f});
  return all;
}

TEST(Route, ScoresChoicesWeightsAndEntropyAreTheFormula) {
  for (RouteRule rule : rules(16, 4)) {
    for (bool groups : {false, true}) {
      if (groups) rule.num_groups = 4, rule.group_topk = 2;
      Router<double> r{rule, random_values<double>(50 * 16, 1), random_values<double>(16, 2)};
      r.forward();
      for (int t = 0; t < 50; ++t) {
        const double* z = &r.logits[t * 16];
        std::vector<double> s, key, w, unit;
        double sum = 0, total = 0, entropy = 0;
        for (int e = 0; e < 16; ++e) sum += std::exp(z[e]);
        for (int e = 0; e < 16; ++e)
          s.push_back(rule.score == ScoreFunction::kSoftmax ? std::exp(z[e]) / sum
                                                            : 1 / (1 + std::exp(-z[e])));
        for (int e = 0; e < 16; ++e) key.push_back(s[e] + r.bias[e]);
        const Experts expected = choose(key, rule);
        ASSERT_EQ(Experts(&r.expert[t * 4], &r.expert[t * 4] + 4), expected);
        const bool post = rule.score == ScoreFunction::kSoftmax && !rule.pre_softmax;
        for (int32_t e : expected) w.push_back(post ? std::exp(z[e]) : s[e]);
        for (double x : w) total += x;
        for (double& x : w) x *= 2.5 / (post || rule.normalize ? total : 1);
        expect_close(std::vector<double>(&r.weight[t * 4], &r.weight[t * 4] + 4), w);
        const double all = std::accumulate(s.begin(), s.end(), 0.0);
        for (double p : s) entropy -= p / all * std::log(p / all);
        EXPECT_NEAR(r.entropy[t], entropy, 1e-12);
      }
    }
  }
}

TEST(Route, Float32AgreesWithDouble) {
  for (const RouteRule& rule : rules(64, 8)) {
    Router<float> f{rule, random_values<float>(100 * 64, 1)};
    Router<double> d{rule, doubles(f.logits)};
    f.forward(), d.forward();
    EXPECT_EQ(f.expert, d.expert);
    expect_close(f.scores, d.scores, 1e-6);
    expect_close(f.weight, d.weight, 1e-6);
    expect_close(f.entropy, d.entropy, 1e-6);
  }
}

TEST(Route, ATieGoesToTheLowestExpert) {
  Router<float> r{{6, 3}, {1, 2, 2, 0, 2, 2}};
  r.forward();
  EXPECT_EQ(r.expert, (Experts{1, 2, 4}));
}

TEST(Route, ATieBetweenGroupsGoesToTheLowestGroup) {
  RouteRule rule{8, 2, ScoreFunction::kSigmoid};
  rule.num_groups = 4, rule.group_topk = 1;
  Router<float> r{rule, {0, 0, 1, 2, 2, 1, 1, 2}};
  r.forward();
  EXPECT_EQ(r.expert, (Experts{3, 2}));
}

TEST(Route, OnlyTheBestGroupsAreSearched) {
  RouteRule rule{6, 2, ScoreFunction::kSigmoid};
  rule.num_groups = 3, rule.group_topk = 1;
  Router<float> r{rule, {3, -9, 1, 1, 2, -2}};  // expert 0 is best, but its group's sum of two is not
  r.forward();
  EXPECT_EQ(r.expert, (Experts{2, 3}));
}

TEST(Route, TheBiasChoosesButDoesNotWeigh) {
  Router<double> r{{3, 1, ScoreFunction::kSigmoid}, {2, 1, 0}, {0, 0, 5}};
  r.forward();
  EXPECT_EQ(r.expert, (Experts{2}));
  EXPECT_EQ(r.weight[0], 0.5);
}

TEST(Route, NotANumberStillGivesDistinctExperts) {
  for (RouteRule rule : rules(8, 3)) {
    for (bool groups : {false, true}) {
      if (groups) rule.num_groups = 4, rule.group_topk = 2;
      Router<float> r{rule, std::vector<float>(16, NAN)};
      r.logits[9] = 1;
      r.forward();
      for (int t = 0; t < 2; ++t) {
        const std::set<int32_t> chosen(&r.expert[t * 3], &r.expert[t * 3] + 3);
        EXPECT_EQ(chosen.size(), 3u);
        EXPECT_TRUE(*chosen.begin() >= 0 && *chosen.rbegin() < 8);
      }
    }
  }
}

TEST(Route, SigmoidsThatUnderflowWeighNothing) {
  Router<float> r{{4, 2, ScoreFunction::kSigmoid, false, true}, {-200, -200, -200, -200}};
  r.forward();
  EXPECT_EQ(r.weight, (std::vector<float>{0, 0}));
  const std::vector<float> dweight = {1, 2};
  r.backward(dweight.data(), nullptr);
  for (float d : r.dlogits) EXPECT_EQ(d, 0);
}

TEST(Route, ForcedBalanceDealsExpertsInTurn) {
  RouteRule rule{5, 2};
  rule.force_balance = true;
  Router<float> r{rule, random_values<float>(15, 1)};
  r.forward();
  EXPECT_EQ(r.expert, (Experts{0, 1, 2, 3, 4, 0}));
}

TEST(Route, NoTokens) {
  Router<float> r{{8, 2}, {}};
  r.forward();
  r.backward(nullptr, nullptr);
  EXPECT_TRUE(r.expert.empty());
}

TEST(Route, AllExpertsChosenAndOneExpert) {
  Router<double> all{{4, 4}, {1, 3, 2, 0}}, one{{1, 1}, {7}};
  all.forward(), one.forward();
  EXPECT_EQ(all.expert, (Experts{1, 2, 0, 3}));
  EXPECT_EQ(one.weight[0], 1);
  EXPECT_EQ(one.entropy[0], 0);
}

TEST(Route, SameBitsForEveryNumberOfThreads) {
  const auto dweight = random_values<float>(1000 * 4, 2), dscores = random_values<float>(1000 * 65, 3);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      Router<float> r{{65, 4, ScoreFunction::kSigmoid, true, true}, random_values<float>(1000 * 65, 1)};
      r.forward();
      r.backward(dweight.data(), dscores.data());
      return r;
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_EQ(one.expert, three.expert);
  EXPECT_TRUE(same_bits(one.weight, three.weight) && same_bits(one.dlogits, three.dlogits));
}

TEST(RouteGradient, MatchesFiniteDifferences) {
  const auto dweight = random_values<double>(6 * 3, 2), dscores = random_values<double>(6 * 8, 3);
  for (RouteRule rule : rules(8, 3)) {
    for (int mode = 0; mode < 8; ++mode) {
      rule.force_balance = mode & 4;
      const bool weights = mode & 1, scores = mode & 2;
      Router<double> r{rule, random_values<double>(6 * 8, 1)};
      r.forward();
      r.backward(weights ? dweight.data() : nullptr, scores ? dscores.data() : nullptr);
      const auto expected = numeric_gradient(r.logits, [&] {
        r.forward();
        return (weights ? dot_of(r.weight, dweight) : 0) + (scores ? dot_of(r.scores, dscores) : 0);
      });
      expect_close(r.dlogits, expected, 1e-6);
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
