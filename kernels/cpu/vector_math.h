// exp that the compiler can put into vector registers (std::exp is a call per element).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::kernels {

// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln(2)/2, where the Taylor polynomial of degree 7
// has a relative error below 1e-8; with rounding the result is within 2e-7. Below -87 (where float32 loses
// precision) it is 0, above 88.3 infinity, and NaN stays NaN.
inline float vector_exp(float x) {
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
  const float in_range = x < -87.0f ? -87.0f : (x > 88.3f ? 88.3f : x);
  const float shifted = in_range * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (in_range - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;  // the bits of 2^n
  const float y = p * std::bit_cast<float>(power);
  return x < -87.0f ? 0.0f : (x > 88.3f ? HUGE_VALF : y);
}

inline double vector_exp(double x) { return std::exp(x); }

}  // namespace switchyard::kernels
