// exp that the compiler can put into vector registers (std::exp is a call per element).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::kernels {

// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln(2)/2, where the Taylor polynomial of degree 7
// has a relative error below 1e-8; with rounding the result is within 2e-7. Below -86.6, where float32 is
// about to lose precision, it is 0; NaN stays NaN. Bits are masked rather than values chosen, because the
// compiler makes vector code of a loop only if nothing in it looks like a branch.
inline float vector_exp(float x) {
  constexpr float kLowest = -86.6f, kHighest = 89.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum holds the nearest integer in its lowest bits
  const uint32_t keep = -static_cast<uint32_t>(!(x < kLowest));  // all bits or none
  const float y = std::bit_cast<float>(std::bit_cast<uint32_t>(std::min(x, kHighest)) & keep);
  const float shifted = y * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // The bits of 2^(n-1), because n may be 128.
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) + 126u) << 23;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(2.0f * p * std::bit_cast<float>(power)) & keep);
}

inline double vector_exp(double x) { return std::exp(x); }

}  // namespace switchyard::kernels
