// exp, log and sigmoid as straight-line code without branches or calls, so that a loop over them becomes
// vector instructions of whatever width the processor has. float only; double takes the C library's.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::kernels {

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2, and e^r by its Taylor series to r^6 (rest
// < 1.3e-7). Relative error < 4e-7. Overflows to inf, underflows through the subnormals to 0, NaN stays NaN.
[[gnu::always_inline]] inline float fast_exp(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;  // 9 bits: n * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves round(x) in the low bits
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float e = 1.0f / 720;
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  // 2^n in two factors: n = 128 and n < -126 are no exponents of one float.
  const int32_t i = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound));
  const int32_t half = i >> 1;
  const uint32_t low = static_cast<uint32_t>(half + 127) << 23;
  const uint32_t high = static_cast<uint32_t>(i - half + 127) << 23;
  return e * std::bit_cast<float>(low) * std::bit_cast<float>(high);
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
