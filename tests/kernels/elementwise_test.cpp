#include "kernels/elementwise.h"

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kSizes[] = {0, 1, 13, 4096, 40003};

template <class T>
class Elementwise : public testing::Test {};
using Types = testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(Elementwise, Types);

TYPED_TEST(Elementwise, Axpby) {
  for (int64_t n : kSizes) {
    auto a = random_values<TypeParam>(n, 1), b = random_values<TypeParam>(n, 2);
    std::vector<double> expected;
    for (int64_t i = 0; i < n; ++i) expected.push_back(3 * to_double(a[i]) - 0.5 * to_double(b[i]));
    run(Cpu{}, Axpby<TypeParam>{a.data(), a.data(), b.data(), n, 3, -0.5});
    expect_close(a, expected);
  }
}

TYPED_TEST(Elementwise, AxpbyWithoutB) {
  const auto a = random_values<TypeParam>(77, 1);
  std::vector<TypeParam> y(77);
  run(Cpu{}, Axpby<TypeParam>{y.data(), a.data(), nullptr, 77, -2, 5});
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(to_double(y[i]), -2 * to_double(a[i]));
}

TYPED_TEST(Elementwise, Accumulate) {
  for (int64_t n : kSizes) {
    const auto x = random_values<TypeParam>(n, 1);
    auto y = random_values<Acc<TypeParam>>(n, 2);
    std::vector<double> expected;
    for (int64_t i = 0; i < n; ++i) expected.push_back(to_double(y[i]) + to_double(x[i]));
    run(Cpu{}, Accumulate<TypeParam>{y.data(), x.data(), n});
    expect_close(y, expected, 1e-7);
  }
}

TYPED_TEST(Elementwise, ScaleBy) {
  auto y = random_values<TypeParam>(40003, 1);
  const auto before = doubles(y);
  const Acc<TypeParam> factor = 0.25;
  run(Cpu{}, ScaleBy<TypeParam>{y.data(), &factor, 40003});
  for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(to_double(y[i]), before[i] / 4);
}

TYPED_TEST(Elementwise, AddBias) {
  const auto x = random_values<TypeParam>(7 * 33, 1), b = random_values<TypeParam>(33, 2);
  std::vector<TypeParam> y(x.size());
  std::vector<double> expected;
  for (int i = 0; i < 7 * 33; ++i) expected.push_back(to_double(x[i]) + to_double(b[i % 33]));
  run(Cpu{}, AddBias<TypeParam>{y.data(), x.data(), b.data(), 7, 33});
  expect_close(y, expected);
}

TYPED_TEST(Elementwise, ColumnSumAddsToTheOutput) {
  for (int64_t rows : {0, 1, 63, 64, 1000}) {
    const int64_t cols = 67;
    const auto x = random_values<TypeParam>(rows * cols, 1);
    std::vector<Acc<TypeParam>> out(cols, 3), workspace(ColumnSum<TypeParam>::kBlocks * cols);
    std::vector<double> expected(cols, 3);
    for (int64_t i = 0; i < rows * cols; ++i) expected[i % cols] += to_double(x[i]);
    run(Cpu{}, ColumnSum<TypeParam>{out.data(), x.data(), workspace.data(), rows, cols});
    expect_close(out, expected, 1e-6);
  }
}

TYPED_TEST(Elementwise, SumOfValuesAndOfSquares) {
  for (int64_t n : kSizes) {
    const auto x = random_values<TypeParam>(n, 1);
    double sum = 10, squares = 10, workspace[Sum<TypeParam>::kBlocks], expected = 0, expected_squares = 0;
    for (TypeParam v : x) {
      expected += to_double(v);
      expected_squares += to_double(v) * to_double(v);
    }
    run(Cpu{}, Sum<TypeParam>{.sum = &sum, .x = x.data(), .workspace = workspace, .n = n});
    run(Cpu{}, Sum<TypeParam>{&squares, x.data(), workspace, n, 2, true, true});
    EXPECT_NEAR(sum, expected, 1e-9);
    EXPECT_NEAR(squares, 10 + 2 * expected_squares, 1e-8);
  }
}

TYPED_TEST(Elementwise, SigmoidGateForward) {
  const auto x = random_values<TypeParam>(5 * 37, 1), g = random_values<TypeParam>(5, 2);
  std::vector<TypeParam> y(x.size());
  std::vector<double> expected;
  for (int i = 0; i < 5 * 37; ++i)
    expected.push_back(to_double(x[i]) / (1 + std::exp(-to_double(g[i / 37]))));
  run(Cpu{}, SigmoidGateForward<TypeParam>{y.data(), x.data(), g.data(), 5, 37});
  expect_close(y, expected);
}

TYPED_TEST(Elementwise, SameBitsForEveryNumberOfThreads) {
  using A = Acc<TypeParam>;
  constexpr int64_t kRows = 503, kCols = 101, kN = kRows * kCols;
  const auto x = random_values<TypeParam>(kN, 1), b = random_values<TypeParam>(kN, 2);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      std::vector<TypeParam> y(kN);
      std::vector<A> columns(kCols), workspace(64 * kCols);
      std::vector<double> sum(257);
      run(Cpu{}, Axpby<TypeParam>{y.data(), x.data(), b.data(), kN, A(0.3), A(0.7)});
      run(Cpu{}, ColumnSum<TypeParam>{columns.data(), y.data(), workspace.data(), kRows, kCols});
      run(Cpu{}, Sum<TypeParam>{&sum[256], y.data(), sum.data(), kN, 1, true});
      return std::tuple{y, columns, sum};
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_TRUE(same_bits(std::get<0>(one), std::get<0>(three)));
  EXPECT_TRUE(same_bits(std::get<1>(one), std::get<1>(three)));
  EXPECT_TRUE(same_bits(std::get<2>(one), std::get<2>(three)));
}

TEST(SigmoidGate, GradientMatchesFiniteDifferences) {
  auto x = random_values<double>(3 * 7, 1), g = random_values<double>(3, 2);
  const auto dy = random_values<double>(21, 3);
  std::vector<double> y(21), dx(21), dg(3);
  const auto loss = [&] {
    run(Cpu{}, SigmoidGateForward<double>{y.data(), x.data(), g.data(), 3, 7});
    return dot_of(y, dy);
  };
  run(Cpu{}, SigmoidGateBackward<double>{dx.data(), dg.data(), dy.data(), x.data(), g.data(), 3, 7});
  expect_close(dx, numeric_gradient(x, loss), kNumericTolerance);
  expect_close(dg, numeric_gradient(g, loss), kNumericTolerance);
}

template <class To, class From>
std::vector<To> cast(const std::vector<From>& x) {
  std::vector<To> y(x.size());
  run(Cpu{}, Cast<To, From>{y.data(), x.data(), static_cast<int64_t>(x.size())});
  return y;
}

TEST(Cast, WideningIsExactAndComesBack) {
  const auto b = random_values<BF16>(5001, 1);
  const auto f = random_values<float>(5001, 2);
  EXPECT_TRUE(same_bits(cast<BF16>(cast<float>(b)), b));
  EXPECT_TRUE(same_bits(cast<BF16>(cast<double>(b)), b));
  EXPECT_TRUE(same_bits(cast<float>(cast<double>(f)), f));
  EXPECT_EQ(cast<double>(f), doubles(f));
}

TEST(Cast, RoundsToNearestEvenAsTheConstructor) {
  std::vector<float> x = random_values<float>(5001, 1);
  const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 3.4e38f, 1e-40f, 1.00390625f, 1.01171875f};
  x.insert(x.end(), std::begin(special), std::end(special));
  std::vector<BF16> expected;
  for (float v : x) expected.push_back(BF16(v));
  EXPECT_TRUE(same_bits(cast<BF16>(x), expected));
}

}  // namespace
}  // namespace switchyard::kernels
