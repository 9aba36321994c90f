// exp, log and sigmoid as straight-line code without branches or calls, so that a loop over them becomes
// vector instructions of whatever width the processor has. float only; double takes the C library's.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::kernels {

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2, and e^r by its Taylor series to r^6 (rest
// < 1.3e-7). Relative error < 4e-7. Overflows to inf; below -86.6, where float32 is about to lose precision,
// it is 0; NaN stays NaN. Bits are masked rather than values chosen, because the compiler makes vector code
// of a loop only if nothing in it looks like a branch.
[[gnu::always_inline]] inline float fast_exp(float x) {
  constexpr float kLowest = -86.6f, kHighest = 89.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves round(x) in the low bits
  const uint32_t keep = -static_cast<uint32_t>(!(x < kLowest));  // all bits or none
  const float y = std::bit_cast<float>(std::bit_cast<uint32_t>(std::min(x, kHighest)) & keep);
  const float shifted = y * 1.44269504f + kRound;
  const float n = shifted - kRound;
  // ln 2 in two parts; n times the first is exact.
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1.0f / 720;
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) + 126u) << 23;  // of 2^(n-1), because n may be 128
  return std::bit_cast<float>(std::bit_cast<uint32_t>(2.0f * e * std::bit_cast<float>(power)) & keep);
}

inline double fast_exp(double x) { return std::exp(x); }

// ln x = n ln 2 + ln m with m in [1/sqrt(2), sqrt(2)) and ln m = 2 atanh((m - 1) / (m + 1)) to the 9th power.
// For normal positive x (not 0, inf or NaN). Error < 2e-7 relative or 1e-7 absolute, whichever is larger.
[[gnu::always_inline]] inline float fast_log(float x) {
  constexpr uint32_t kSqrtHalf = 0x3f3504f3u;  // bits of 1/sqrt(2)
  const uint32_t bits = std::bit_cast<uint32_t>(x) - kSqrtHalf;
  const float n = static_cast<float>(static_cast<int32_t>(bits) >> 23);
  const float m = std::bit_cast<float>((bits & 0x7fffffu) + kSqrtHalf);
  const float s = (m - 1) / (m + 1), s2 = s * s;
  const float series = 1 + s2 * (1.0f / 3 + s2 * (1.0f / 5 + s2 * (1.0f / 7 + s2 * (1.0f / 9))));
  return n * 0.693147181f + 2 * s * series;
}

inline double fast_log(double x) { return std::log(x); }

template <class A>
[[gnu::always_inline]] inline A sigmoid(A x) {
  return 1 / (1 + fast_exp(-x));
}

}  // namespace switchyard::kernels
