// Matrix product   C (+)= op(A) op(B)   with op the identity or the transpose. All matrices are row-major and
// dense; the leading dimension is the distance between rows in elements.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

// C is T, or Acc<T> (weight gradients of bf16 come out in float32). Products are summed in Acc<T>.
template <class T, class C = T>
struct Matmul {
  C* c;             // [m, n]
  const T* a;       // [m, k], or [k, m] if transpose_a
  const T* b;       // [k, n], or [n, k] if transpose_b
  int64_t m, n, k;  // any may be 0
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;            // C += instead of C =
  int64_t lda = 0, ldb = 0, ldc = 0;  // 0: dense
  bool stream = false;                // C is not read soon: it may be stored past the caches
  const T *next_a = nullptr, *next_b = nullptr;  // read after these, of the same layout: may be fetched ahead
};

// Instantiated for (float, float), (BF16, BF16), (BF16, float), (double, double).
template <class T, class C>
void run(Cpu, const Matmul<T, C>&);
template <class T, class C>
void run(Cuda, const Matmul<T, C>&);

}  // namespace switchyard::kernels
