#include "kernels/balance.h"

#include <numeric>

#include "tests/support/kernel_test.h"
#include "tests/support/skewed_routing.h"

namespace switchyard::kernels {
namespace {

constexpr BalanceKind kKinds[] = {BalanceKind::kSwitch, BalanceKind::kKl, BalanceKind::kCv,
                                  BalanceKind::kEntropy};

template <class A>
std::vector<A> positive_scores(int64_t n) {
  auto scores = random_values<A>(n, 1);
  for (A& s : scores) s = s * s + A(0.05);
  return scores;
}

template <class A>
struct Balance {
  int64_t tokens, experts, top_k, segments;
  BalanceKind kind;
  A coeff = A(0.3), loss = -1;
  std::vector<A> scores = positive_scores<A>(tokens * experts), dscores = std::vector<A>(scores.size(), 9);
  std::vector<A> mean = std::vector<A>(segments * experts), dmean = mean;
  std::vector<A> excess = {};  // empty: the shares are the assignments'
  std::vector<int32_t> expert = skewed_routing(Skew::kZipf, tokens, top_k, experts, 2).expert;

  double forward() {
    run(Cpu{},
        BalanceForward<A>{&loss, dmean.data(), mean.data(), scores.data(), expert.data(), tokens, experts,
                          top_k, segments, kind, coeff, nullptr, excess.empty() ? nullptr : excess.data()});
    return static_cast<double>(loss);
  }
  void backward(A dloss) {
    run(Cpu{},
        BalanceBackward<A>{dscores.data(), &dloss, dmean.data(), scores.data(), tokens, experts, segments});
  }
};

double expected_loss(const Balance<double>& b) {
  const int64_t tokens = b.tokens / b.segments, n = b.experts;
  const double e_count = static_cast<double>(n);
  double loss = 0;
  for (int64_t s = 0; s < b.segments; ++s) {
    std::vector<double> p(n), f(n);
    for (int64_t t = s * tokens; t < (s + 1) * tokens; ++t) {
      const double sum = std::accumulate(&b.scores[t * n], &b.scores[t * n] + n, 0.0);
      for (int64_t e = 0; e < n; ++e) p[e] += b.scores[t * n + e] / sum / static_cast<double>(tokens);
      for (int64_t j = 0; j < b.top_k; ++j)
        f[b.expert[t * b.top_k + j]] += 1 / static_cast<double>(tokens * b.top_k);
    }
    for (size_t e = 0; e < b.excess.size(); ++e) f[e] = 1 / e_count + b.excess[e];
    double value = 0, entropy = 0, log_sum = 0, square = 0;
    for (int64_t e = 0; e < n; ++e) {
      entropy -= p[e] * std::log(p[e]);
      log_sum += std::log(p[e]);
      square += p[e] * p[e];
    }
    if (b.kind == BalanceKind::kSwitch) value = e_count * dot_of(f, p);
    if (b.kind == BalanceKind::kKl) value = -std::log(e_count) - log_sum / e_count;
    if (b.kind == BalanceKind::kCv) value = square * e_count - 1;  // the mean of P is 1 / E
    if (b.kind == BalanceKind::kEntropy) value = 1 - entropy / std::log(e_count);
    loss += b.coeff * value / static_cast<double>(b.segments);
  }
  return loss;
}

TEST(BalanceLoss, IsTheFormula) {
  for (BalanceKind kind : kKinds) {
    for (int64_t segments : {1, 4}) {
      Balance<double> b{120, 150, 3, segments, kind};
      EXPECT_NEAR(b.forward(), expected_loss(b), 1e-12);
    }
  }
}

// E = 5: the five given shares sum to 1, and the segment's own assignments do not matter.
std::vector<double> given_excess() { return {0.3, -0.15, 0.05, -0.2, 0}; }

TEST(BalanceLoss, TakesGivenSharesInPlaceOfTheAssignments) {
  for (int64_t segments : {1, 3}) {
    Balance<double> b{60, 5, 2, segments, BalanceKind::kSwitch};
    const double own = b.forward();
    b.excess = given_excess();
    const double given = b.forward();
    EXPECT_NEAR(given, expected_loss(b), 1e-13);
    EXPECT_NE(given, own);
    std::fill(b.expert.begin(), b.expert.end(), 2);
    EXPECT_EQ(b.forward(), given);
  }
}

TEST(BalanceLoss, EvenGivenSharesCostTheCoefficientAndPressNowhere) {
  Balance<double> b{60, 5, 2, 1, BalanceKind::kSwitch};
  b.excess.assign(5, 0.0);
  EXPECT_NEAR(b.forward(), 0.3, 1e-15);
  b.backward(1);
  for (double d : b.dscores) EXPECT_NEAR(d, 0, 1e-16);
}

TEST(BalanceLoss, Float32AgreesWithDouble) {
  for (BalanceKind kind : kKinds) {
    Balance<float> f{120, 33, 3, 2, kind};
    Balance<double> d{120, 33, 3, 2, kind};
    d.scores = doubles(f.scores);
    EXPECT_NEAR(f.forward(), d.forward(), 1e-6);
    f.backward(2), d.backward(2);
    expect_close(f.dscores, d.dscores, 1e-5);
  }
}

TEST(BalanceLoss, UniformRoutingCostsTheCoefficient) {
  Balance<double> b{40, 10, 2, 1, BalanceKind::kSwitch};
  std::fill(b.scores.begin(), b.scores.end(), 0.7);
  for (size_t p = 0; p < b.expert.size(); ++p) b.expert[p] = static_cast<int32_t>(p % 10);
  EXPECT_NEAR(b.forward(), 0.3, 1e-15);
  for (BalanceKind kind : {BalanceKind::kKl, BalanceKind::kCv, BalanceKind::kEntropy}) {
    b.kind = kind;
    EXPECT_NEAR(b.forward(), 0, 1e-15);
  }
}

TEST(BalanceLoss, NoTokensAndOneExpert) {
  for (BalanceKind kind : kKinds) {
    Balance<float> none{0, 4, 2, 1, kind}, single{8, 1, 1, 1, kind};
    EXPECT_EQ(none.forward(), 0);
    EXPECT_TRUE(std::isfinite(single.forward()));
    single.backward(1);
    for (float d : single.dscores) EXPECT_NEAR(d, 0, 1e-6);
  }
}

TEST(BalanceLoss, AnExpertWithoutAnyScoreStaysFinite) {
  for (BalanceKind kind : kKinds) {
    Balance<float> b{8, 4, 1, 1, kind};
    for (size_t i = 0; i < b.scores.size(); i += 4) b.scores[i] = 0;
    EXPECT_TRUE(std::isfinite(b.forward()));
    b.backward(1);
    for (float d : b.dscores) EXPECT_TRUE(std::isfinite(d));
  }
}

TEST(BalanceLoss, SameBitsForEveryNumberOfThreads) {
  const auto result = [](int threads) {
    return with_threads(threads, [] {
      Balance<float> b{600, 130, 2, 2, BalanceKind::kSwitch};
      b.forward();
      b.backward(1);
      return b;
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_EQ(one.loss, three.loss);
  EXPECT_TRUE(same_bits(one.mean, three.mean) && same_bits(one.dscores, three.dscores));
}

TEST(BalanceGradient, MatchesFiniteDifferences) {
  for (BalanceKind kind : kKinds) {
    for (int64_t segments : {1, 3}) {
      Balance<double> b{12, 5, 2, segments, kind};
      b.forward();
      b.backward(1.5);
      const auto expected = numeric_gradient(b.scores, [&] { return 1.5 * b.forward(); });
      expect_close(b.dscores, expected, kNumericTolerance);
    }
  }
}

TEST(BalanceGradient, OfGivenSharesMatchesFiniteDifferences) {
  Balance<double> b{12, 5, 2, 1, BalanceKind::kSwitch};
  b.excess = given_excess();
  b.forward();
  b.backward(1.5);
  expect_close(b.dscores, numeric_gradient(b.scores, [&] { return 1.5 * b.forward(); }), kNumericTolerance);
}

template <class A>
struct ZLoss {
  int64_t tokens, experts;
  A loss = -1;
  std::vector<A> z = random_values<A>(tokens * experts, 1), dz = z, lse = std::vector<A>(tokens);
  double forward() {
    run(Cpu{}, ZLossForward<A>{&loss, lse.data(), z.data(), tokens, experts, A(0.1)});
    return static_cast<double>(loss);
  }
  void backward(A dloss) {
    run(Cpu{}, ZLossBackward<A>{dz.data(), &dloss, lse.data(), z.data(), tokens, experts, A(0.1)});
  }
};

TEST(ZLossTest, IsTheFormulaAndItsGradient) {
  ZLoss<double> l{9, 11};
  double expected = 0;
  for (int t = 0; t < 9; ++t) {
    double sum = 0;
    for (int e = 0; e < 11; ++e) sum += std::exp(l.z[t * 11 + e]);
    expected += 0.1 / 9 * std::pow(std::log(sum), 2);
  }
  EXPECT_NEAR(l.forward(), expected, 1e-13);
  l.backward(3);
  expect_close(l.dz, numeric_gradient(l.z, [&] { return 3 * l.forward(); }), kNumericTolerance);
}

TEST(ZLossTest, Float32AgreesWithDoubleAndNoTokensCostNothing) {
  ZLoss<float> f{50, 64};
  ZLoss<double> d{50, 64};
  d.z = doubles(f.z);
  EXPECT_NEAR(f.forward(), d.forward(), 1e-6);
  f.backward(1), d.backward(1);
  expect_close(f.dz, d.dz, 1e-5);
  ZLoss<float> none{0, 8};
  EXPECT_EQ(none.forward(), 0);
}

}  // namespace
}  // namespace switchyard::kernels
