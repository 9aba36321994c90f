#include "kernels/cpu/simd_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace switchyard::kernels {
namespace {

TEST(SimdMath, ExpIsCloseOverTheWholeRange) {
  for (float x = -86.5f; x < 88.7f; x += 0.0013f)
    ASSERT_NEAR(fast_exp(x) / std::exp(static_cast<double>(x)), 1, 4e-7) << x;
}

TEST(SimdMath, ExpAtTheEnds) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(fast_exp(0.0f), 1.0f);
  EXPECT_EQ(fast_exp(-kInfinity), 0.0f);
  EXPECT_EQ(fast_exp(-1e30f), 0.0f);
  EXPECT_EQ(fast_exp(kInfinity), kInfinity);
  EXPECT_EQ(fast_exp(89.0f), kInfinity);
  EXPECT_TRUE(std::isfinite(fast_exp(88.72f)));
  EXPECT_TRUE(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(SimdMath, LogIsCloseForNormalNumbers) {
  for (float x = 1e-37f; x < 1e37f; x *= 1.003f) {
    const double expected = std::log(static_cast<double>(x));
    ASSERT_NEAR(fast_log(x), expected, 2e-7 * std::max(0.5, std::abs(expected))) << x;
  }
}

TEST(SimdMath, SigmoidSaturates) {
  EXPECT_EQ(sigmoid(-200.0f), 0.0f);
  EXPECT_EQ(sigmoid(200.0f), 1.0f);
  EXPECT_NEAR(sigmoid(0.3f), 1 / (1 + std::exp(-0.3)), 1e-7);
}

}  // namespace
}  // namespace switchyard::kernels
