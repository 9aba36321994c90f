#include "kernels/rms_norm.h"

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

template <class T>
struct Norm {
  int64_t rows, cols;
  std::vector<T> x = random_values<T>(rows * cols, 1), w = random_values<T>(cols, 2);
  std::vector<T> y = std::vector<T>(x.size()), dx = y;
  std::vector<Acc<T>> rstd = std::vector<Acc<T>>(rows), dw = std::vector<Acc<T>>(cols, 1);
  std::vector<Acc<T>> workspace = std::vector<Acc<T>>(RmsNormBackward<T>::kBlocks * cols);

  void forward() {
    run(Cpu{}, RmsNormForward<T>{y.data(), rstd.data(), x.data(), w.data(), rows, cols, Acc<T>(1e-5)});
  }
  void backward(const std::vector<T>& dy) {
    run(Cpu{}, RmsNormBackward<T>{dx.data(), dw.data(), dy.data(), x.data(), w.data(), rstd.data(),
                                  workspace.data(), rows, cols});
  }
};

template <class T>
class RmsNorm : public testing::Test {};
using Types = testing::Types<float, BF16, double>;
TYPED_TEST_SUITE(RmsNorm, Types);

TYPED_TEST(RmsNorm, ForwardIsTheFormula) {
  for (const auto& [rows, cols] : {std::pair{7, 129}, {1, 1}, {70, 64}, {3, 13}}) {
    Norm<TypeParam> n{rows, cols};
    n.forward();
    std::vector<double> expected;
    for (int r = 0; r < rows; ++r) {
      double mean = 0;
      for (int c = 0; c < cols; ++c) mean += std::pow(to_double(n.x[r * cols + c]), 2) / cols;
      for (int c = 0; c < cols; ++c)
        expected.push_back(to_double(n.x[r * cols + c]) / std::sqrt(mean + 1e-5) * to_double(n.w[c]));
    }
    expect_close(n.y, expected, 2 * kTolerance<TypeParam>);
  }
}

TYPED_TEST(RmsNorm, NoRowsLeaveTheWeightGradientAsItIs) {
  Norm<TypeParam> n{0, 8};
  n.forward();
  n.backward({});
  EXPECT_EQ(n.dw, std::vector<Acc<TypeParam>>(8, 1));
}

TYPED_TEST(RmsNorm, SameBitsForEveryNumberOfThreads) {
  const auto dy = random_values<TypeParam>(301 * 133, 3);
  const auto result = [&](int threads) {
    return with_threads(threads, [&] {
      Norm<TypeParam> n{301, 133};
      n.forward();
      n.backward(dy);
      return n;
    });
  };
  const auto one = result(1), three = result(3);
  EXPECT_TRUE(same_bits(one.y, three.y) && same_bits(one.dx, three.dx) && same_bits(one.dw, three.dw));
}

TEST(RmsNormGradient, MatchesFiniteDifferences) {
  Norm<double> n{5, 11};
  const auto dy = random_values<double>(55, 3);
  const auto loss = [&] {
    n.forward();
    return dot_of(n.y, dy);
  };
  n.forward();
  n.backward(dy);
  for (double& d : n.dw) d -= 1;  // it is added to
  expect_close(n.dx, numeric_gradient(n.x, loss), kNumericTolerance);
  expect_close(n.dw, numeric_gradient(n.w, loss), kNumericTolerance);
}

TEST(RmsNormGradient, Bf16IsCloseToDouble) {
  Norm<BF16> n{70, 100};
  Norm<double> d{70, 100};
  d.x = doubles(n.x), d.w = doubles(n.w);
  const auto dy = random_values<BF16>(7000, 3);
  n.forward(), n.backward(dy);
  d.forward(), d.backward(doubles(dy));
  expect_close(n.dx, d.dx);
  expect_close(n.dw, d.dw, 1e-5);
}

}  // namespace
}  // namespace switchyard::kernels
