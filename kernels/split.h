// A float32 number as the sum of three bf16 ones, 24 bits together:
//   hi = bf16(x),   mid = bf16(x - hi),   lo = bf16(x - hi - mid)
// A product of bf16 numbers is exact in float32. So bf16 tensor cores multiply a bf16 matrix by a float32 one
// without rounding the latter: they multiply by its parts, side by side in one matrix, and the results are
// added up. Of a number that is not finite, mid and lo are NaN.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

enum class Part : int32_t { kHi, kMid, kLo };

// y[r, t, :] = the part `part[t]` of x[r, :]
struct Split {
  static constexpr int kTerms = 4;
  BF16* y;         // [rows, terms, cols]
  const float* x;  // [rows, cols]
  int64_t rows, cols;
  int terms;  // at most kTerms
  Part part[kTerms];
};
void run(Cpu, const Split&);
void run(Cuda, const Split&);

// y[r, :] (+)= x[r, 0, :] + x[r, 1, :] + x[r, 2, :], from the last, which is the smallest, to the first
struct SumParts {
  float* y;        // [rows, cols]
  const float* x;  // [rows, 3, cols]
  int64_t rows, cols;
  bool accumulate = false;  // y += instead of y =
};
void run(Cpu, const SumParts&);
void run(Cuda, const SumParts&);

}  // namespace switchyard::kernels
