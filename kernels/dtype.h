// Element types, and the step from a run-time DType to a compile-time type.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/exec.h"

namespace switchyard {

enum class DType : uint8_t { kF32, kBF16, kF64, kI32, kI64, kU8 };

// The upper half of a float32: 8 bits of exponent, 7 of mantissa. Storage only; arithmetic is in
// float. Layout-compatible with CUDA's __nv_bfloat16.
struct BF16 {
  uint16_t bits = 0;

  BF16() = default;
  // Rounds to nearest, ties to even; NaN stays NaN (quiet).
  SWITCHYARD_HOST_DEVICE explicit BF16(float x) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  SWITCHYARD_HOST_DEVICE explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

// The type in which values of T are summed and in which statistics, losses, router scores and
// gradients of parameters are kept: float, or double for double (gradient checks).
template <class T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::kF32;
  else if constexpr (std::is_same_v<T, BF16>)
    return DType::kBF16;
  else if constexpr (std::is_same_v<T, double>)
    return DType::kF64;
  else if constexpr (std::is_same_v<T, int32_t>)
    return DType::kI32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::kI64;
  else {
    static_assert(std::is_same_v<T, uint8_t>);
    return DType::kU8;
  }
}

constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kBF16: return 2;
    case DType::kF32:
    case DType::kI32: return 4;
    case DType::kF64:
    case DType::kI64: return 8;
    case DType::kU8: return 1;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kF64: return "f64";
    case DType::kI32: return "i32";
    case DType::kI64: return "i64";
    case DType::kU8: return "u8";
  }
  return "?";
}

constexpr bool is_float(DType d) { return d == DType::kF32 || d == DType::kBF16 || d == DType::kF64; }

// DType of Acc<T>.
constexpr DType acc_of(DType d) { return d == DType::kF64 ? DType::kF64 : DType::kF32; }

// Calls f.template operator()<T>() with the floating-point type that `dtype` names.
template <class F>
decltype(auto) visit_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<BF16>();
    case DType::kF64: return f.template operator()<double>();
    default: break;
  }
  fail(Fault::kInternal, "a floating-point tensor is needed, got ", name_of(dtype));
}

}  // namespace switchyard
