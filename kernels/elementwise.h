// Small memory-bound pieces. n may be 0. Arithmetic is in Acc<T>.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

// y = alpha * a + beta * b.   b may be null (then beta is not used); y may be a or b.
template <class T>
struct Axpby {
  T* y;
  const T* a;
  const T* b;
  int64_t n;
  Acc<T> alpha = 1, beta = 1;
};

// y = To(x), rounded to nearest even. (float, BF16, double in any pair)
template <class To, class From>
struct Cast {
  To* y;
  const From* x;
  int64_t n;
};

// y += x, in Acc<T> (a gradient in T joins an accumulator).
template <class T>
struct Accumulate {
  Acc<T>* y;
  const T* x;
  int64_t n;
};

// y *= factor, factor read from memory of the executor (so that a clip coefficient
// needs no trip to the host).
template <class T>
struct ScaleBy {
  T* y;
  const Acc<T>* factor;  // [1]
  int64_t n;
};

// y = a * b, element by element.   y may be a or b.
template <class T>
struct Multiply {
  T* y;
  const T* a;
  const T* b;
  int64_t n;
};

// y[r, :] = x[r, :] + b
template <class T>
struct AddBias {
  T* y;  // [rows, cols], may be x
  const T* x;
  const T* b;  // [cols]
  int64_t rows, cols;
};

// out[c] += sum over rows of x[r, c].   Fixed blocks of rows: the same bits for every number of threads.
template <class T>
struct ColumnSum {
  static constexpr int64_t kBlocks = 64;
  Acc<T>* out;        // [cols]
  const T* x;         // [rows, cols]
  Acc<T>* workspace;  // [kBlocks, cols]
  int64_t rows, cols;
};

// y[r, :] = sigmoid(g[r]) * x[r, :]   (a shared expert's gate)
template <class T>
struct SigmoidGateForward {
  T* y;        // [rows, cols]
  const T* x;  // [rows, cols]
  const T* g;  // [rows]
  int64_t rows, cols;
};

// dx = sigmoid(g) dy,   dg[r] = sigmoid'(g[r]) * dot(dy[r, :], x[r, :])
template <class T>
struct SigmoidGateBackward {
  T* dx;
  T* dg;
  const T* dy;
  const T* x;
  const T* g;
  int64_t rows, cols;
};

// sum[0] (+)= scale * sum of x[i] (or x[i]^2 if square), in double, in fixed blocks.
template <class T>
struct Sum {
  static constexpr int64_t kBlocks = 256;
  double* sum;  // [1]
  const T* x;
  double* workspace;  // [kBlocks]
  int64_t n;
  double scale = 1;
  bool square = false;
  bool accumulate = false;
};

#define SWITCHYARD_DECLARE_RUN(Args) \
  template <class T>                 \
  void run(Cpu, const Args<T>&);     \
  template <class T>                 \
  void run(Cuda, const Args<T>&);

// Instantiated for float, BF16, double.
SWITCHYARD_DECLARE_RUN(Axpby)
SWITCHYARD_DECLARE_RUN(Accumulate)
SWITCHYARD_DECLARE_RUN(ScaleBy)
SWITCHYARD_DECLARE_RUN(Multiply)
SWITCHYARD_DECLARE_RUN(AddBias)
SWITCHYARD_DECLARE_RUN(ColumnSum)
SWITCHYARD_DECLARE_RUN(SigmoidGateForward)
SWITCHYARD_DECLARE_RUN(SigmoidGateBackward)
SWITCHYARD_DECLARE_RUN(Sum)
#undef SWITCHYARD_DECLARE_RUN

template <class To, class From>
void run(Cpu, const Cast<To, From>&);
template <class To, class From>
void run(Cuda, const Cast<To, From>&);

}  // namespace switchyard::kernels
