// IEEE half precision: 5 bits of exponent, 10 of mantissa. Storage of logits between two kernels
// (half_logits.h); no tensor has this type.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/exec.h"

namespace switchyard {

struct F16 {
  uint16_t bits = 0;

  F16() = default;
  // Rounds to nearest, ties to even; beyond 65504 lies infinity, NaN stays NaN.
  SWITCHYARD_HOST_DEVICE explicit F16(float x) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    bits = rounded(x);
#endif
  }
  SWITCHYARD_HOST_DEVICE explicit operator float() const {
#ifdef __CUDA_ARCH__
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
#else
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float size = exponent == 31  ? (mantissa ? NAN : INFINITY)
                       : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                       : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    return bits >> 15 ? -size : size;
#endif
  }

 private:
  static uint16_t rounded(float x) {
    const auto sign = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16 & 0x8000u);
    const float size = std::abs(x);
    if (std::isnan(x)) return sign | 0x7e00u;
    if (size >= 65520.0f) return sign | 0x7c00u;
    // Steps of 2^-24 below 2^-14, else of 2^-10 of the number's power of two.
    const int exponent = size < std::ldexp(1.0f, -14) ? -14 : std::ilogb(size);
    const float steps = std::nearbyint(std::ldexp(size, 10 - exponent));  // 1024 .. 2048 for a normal number
    return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + static_cast<int>(steps));
  }
};

}  // namespace switchyard
