#include "kernels/gate_noise.h"

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

template <class A>
struct Noise {
  int64_t n;
  std::vector<A> logits = random_values<A>(n, 1), spread = random_values<A>(n, 2);
  std::vector<A> noise = random_values<A>(n, 3), dy = random_values<A>(n, 4);
  std::vector<A> y = std::vector<A>(n), dspread = y;

  void forward() { run(Cpu{}, GateNoiseForward<A>{y.data(), logits.data(), spread.data(), noise.data(), n}); }
  void backward() {
    run(Cpu{}, GateNoiseBackward<A>{dspread.data(), dy.data(), spread.data(), noise.data(), n});
  }
};

template <class A>
class GateNoise : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(GateNoise, Types);

TYPED_TEST(GateNoise, ForwardIsTheFormula) {
  for (const int64_t n : {0, 1, 37, 5000}) {
    Noise<TypeParam> g{n};
    g.forward();
    std::vector<double> expected;
    for (int64_t i = 0; i < n; ++i) {
      const double spread = std::log(1 + std::exp(static_cast<double>(g.spread[i])));
      expected.push_back(static_cast<double>(g.logits[i]) + static_cast<double>(g.noise[i]) * spread);
    }
    expect_close(g.y, expected);
  }
}

TYPED_TEST(GateNoise, SameBitsForEveryNumberOfThreads) {
  const auto result = [](int threads) {
    return with_threads(threads, [] {
      Noise<TypeParam> g{70001};
      g.forward();
      g.backward();
      return g;
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_TRUE(same_bits(one.y, three.y) && same_bits(one.dspread, three.dspread));
}

TEST(GateNoiseGradient, MatchesFiniteDifferences) {
  Noise<double> g{23};
  g.backward();
  const auto expected = numeric_gradient(g.spread, [&] {
    g.forward();
    return dot_of(g.y, g.dy);
  });
  expect_close(g.dspread, expected, kNumericTolerance);
}

TEST(GateNoiseValues, LargeSpreadsAreTheNoiseTimesThemAndSmallOnesNone) {
  Noise<float> g{2};
  g.logits = {1, 1}, g.spread = {500, -500}, g.noise = {2, 2}, g.dy = {1, 1};
  g.forward();
  g.backward();
  EXPECT_EQ(g.y, (std::vector<float>{1001, 1}));
  EXPECT_EQ(g.dspread, (std::vector<float>{2, 0}));
}

}  // namespace
}  // namespace switchyard::kernels
