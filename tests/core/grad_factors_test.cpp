#include "core/grad_factors.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/ops.h"
#include "tests/support/gradcheck.h"

namespace switchyard {
namespace {

Tensor random(const Shape& shape, uint64_t seed) { return test::random_tensor(shape, seed, DType::kF32); }

// Three experts with 3, 0 and 100 rows, the last of which are many.
class GradFactorsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!kernels::sums_squares<float>(Cpu{})) GTEST_SKIP() << "this processor's products sum no squares up";
    w.set_grad(Tensor::zeros(w.shape(), DType::kF32, Device::kCpu));
    w.forget_grad();
  }
  void pass(unsigned seed) const {
    backward(grouped_linear(Var(x, true), {w}, groups), random({103, 6}, seed));
  }
  std::vector<float> expected(unsigned seed) const {
    const Var other(w.value(), true);
    backward(grouped_linear(Var(x, true), {other}, groups), random({103, 6}, seed));
    return other.grad().to_vector<float>();
  }

  const std::vector<int64_t> offsets{0, 3, 3, 103};
  const RowGroups groups{Tensor::from<int64_t>(offsets, {4}),
                         std::make_shared<const std::vector<int64_t>>(offsets)};
  const Tensor x = random({103, 5}, 1);
  const Var w{random({3, 6, 5}, 2), true};
};

TEST_F(GradFactorsTest, AreLeftOnlyWhereAllowed) {
  pass(3);
  EXPECT_FALSE(w.grad_factors().has_value());
  w.allow_grad_factors(true);
  pass(3);  // adds
  EXPECT_FALSE(w.grad_factors().has_value());
  w.forget_grad();
  pass(3);
  EXPECT_TRUE(w.grad_factors().has_value());
  w.forget_grad();
  EXPECT_FALSE(w.grad_factors().has_value());
}

TEST_F(GradFactorsTest, SquaresAreKnown) {
  w.allow_grad_factors(true);
  pass(3);
  const std::vector<double> squares = w.grad_squares().to_vector<double>();
  const std::vector<float> grad = expected(3);
  for (int64_t g = 0; g < 3; ++g) {
    const auto begin = grad.begin() + g * 30;
    const double sum = std::inner_product(begin, begin + 30, begin, 0.0);
    EXPECT_NEAR(squares[g], sum, 1e-6 * sum);
  }
}

TEST_F(GradFactorsTest, WhoAsksForTheGradientHasIt) {
  w.allow_grad_factors(true);
  pass(3);
  EXPECT_EQ(w.grad().to_vector<float>(), expected(3));
  EXPECT_FALSE(w.grad_factors().has_value());
}

TEST_F(GradFactorsTest, WhatComesLaterIsAdded) {
  w.allow_grad_factors(true);
  std::vector<float> sum = expected(3);
  const std::vector<float> second = expected(4);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += second[i];
  pass(3);
  pass(4);  // another product
  const std::vector<float> products = w.grad().to_vector<float>();
  w.forget_grad();
  pass(3);
  backward(axpby(w, w, 1, 0), Tensor::from<float>(second, w.shape()));  // another op
  for (size_t i = 0; i < sum.size(); ++i) {
    EXPECT_NEAR(products[i], sum[i], 1e-4);
    EXPECT_NEAR(w.grad().to_vector<float>()[i], sum[i], 1e-4);
  }
  w.forget_grad();
  pass(3);
  EXPECT_EQ(grad_target(w, true).tensor.to_vector<float>(), expected(3));  // one who writes into it
}

}  // namespace
}  // namespace switchyard
