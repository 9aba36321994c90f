#include "kernels/swiglu.h"

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

template <class T>
struct Glu {
  int64_t rows, cols;
  std::vector<T> x = random_values<T>(rows * 2 * cols, 1), y = std::vector<T>(rows * cols);
  std::vector<T> dx = std::vector<T>(x.size());

  void forward() { run(Cpu{}, SwigluForward<T>{y.data(), x.data(), rows, cols}); }
  void backward(const std::vector<T>& dy) {
    run(Cpu{}, SwigluBackward<T>{dx.data(), dy.data(), x.data(), rows, cols});
  }
};

template <class T>
class Swiglu : public testing::Test {};
using Types = testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(Swiglu, Types);

TYPED_TEST(Swiglu, ForwardIsTheFormula) {
  for (const auto& [rows, cols] : {std::pair{5, 37}, {1, 1}, {0, 4}, {3, 64}}) {
    Glu<TypeParam> g{rows, cols};
    g.forward();
    std::vector<double> expected;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < cols; ++c) {
        const double gate = to_double(g.x[r * 2 * cols + c]), up = to_double(g.x[(r * 2 + 1) * cols + c]);
        expected.push_back(gate / (1 + std::exp(-gate)) * up);
      }
    }
    expect_close(g.y, expected);
  }
}

TYPED_TEST(Swiglu, SameBitsForEveryNumberOfThreads) {
  const auto dy = random_values<TypeParam>(331 * 101, 2);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      Glu<TypeParam> g{331, 101};
      g.forward();
      g.backward(dy);
      return g;
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_TRUE(same_bits(one.y, three.y) && same_bits(one.dx, three.dx));
}

TEST(SwigluValues, LargeGatesSaturate) {
  Glu<float> g{1, 2};
  g.x = {-300, 300, 2, 2};
  g.forward();
  g.backward({1, 1});
  EXPECT_EQ(g.y, (std::vector<float>{-0.0f, 600}));
  EXPECT_EQ(g.dx, (std::vector<float>{0, 2, 0, 300}));
}

TEST(SwigluGradient, MatchesFiniteDifferences) {
  Glu<double> g{3, 7};
  const auto dy = random_values<double>(21, 2);
  g.backward(dy);
  const auto expected = numeric_gradient(g.x, [&] {
    g.forward();
    return dot_of(g.y, dy);
  });
  expect_close(g.dx, expected, kNumericTolerance);
}

TEST(SwigluGradient, Bf16IsCloseToDouble) {
  Glu<BF16> g{9, 53};
  Glu<double> d{9, 53};
  d.x = doubles(g.x);
  const auto dy = random_values<BF16>(9 * 53, 2);
  g.backward(dy);
  d.backward(doubles(dy));
  expect_close(g.dx, d.dx);
}

}  // namespace
}  // namespace switchyard::kernels
