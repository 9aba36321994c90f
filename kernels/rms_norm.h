// RMSNorm, row by row:   rstd = 1 / sqrt(mean(x^2) + eps),   y = (x * rstd) * w
// In bf16, x * rstd is rounded to bf16 before the weight multiplies (as Hugging Face does).
// With `delta`, what is normalised is x + delta (rounded to T), the residual stream, which is kept as `sum`.
// Backward:
//   g = dy * w
//   dx = rstd * (g - x * rstd^2 * mean(g * x))
//   dw = sum over rows of dy * x * rstd
// `dsum`, the gradient that reaches x by other ways, is added to dx (after dx is rounded to T).
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

template <class T>
struct RmsNormForward {
  T* y;          // [rows, cols]
  Acc<T>* rstd;  // [rows]
  const T* x;    // [rows, cols]
  const T* w;    // [cols]
  int64_t rows, cols;
  Acc<T> eps;
  const T* delta = nullptr;  // [rows, cols] or null
  T* sum = nullptr;          // [rows, cols], written where there is delta
};

// Rows are summed in kBlocks fixed blocks, so that dw has the same bits for every number of threads.
template <class T>
struct RmsNormBackward {
  static constexpr int64_t kBlocks = 256;
  T* dx;               // [rows, cols]
  Acc<T>* dw;          // [cols], added to
  const T* dy;         // [rows, cols]
  const T* x;          // [rows, cols]
  const T* w;          // [cols]
  const Acc<T>* rstd;  // [rows]
  Acc<T>* workspace;   // [kBlocks, cols]
  int64_t rows, cols;
  const T* dsum = nullptr;  // [rows, cols] or null
};

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const RmsNormForward<T>&);
template <class T>
void run(Cuda, const RmsNormForward<T>&);
template <class T>
void run(Cpu, const RmsNormBackward<T>&);
template <class T>
void run(Cuda, const RmsNormBackward<T>&);

}  // namespace switchyard::kernels
