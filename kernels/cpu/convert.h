// Blocks of a matrix between their storage type T and the type A = Acc<T> in which they are computed with.
#pragma once

#include "kernels/cpu/loops.h"

namespace switchyard::kernels {

// to[r, :] = scale * from[r, :]
template <class A, class T>
void load_rows(A* to, int64_t to_ld, const T* from, int64_t from_ld, int64_t rows, int64_t cols,
               A scale = 1) {
  for (int64_t r = 0; r < rows; ++r) {
    A* y = to + r * to_ld;
    const T* x = from + r * from_ld;
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) y[c] = scale * static_cast<A>(x[c]);
  }
}

// to[r, :] = scale * from[r, :], rounded to T; added to what is there if `accumulate`.
template <class A, class T>
void store_rows(T* to, int64_t to_ld, const A* from, int64_t from_ld, int64_t rows, int64_t cols, A scale = 1,
                bool accumulate = false) {
  for (int64_t r = 0; r < rows; ++r) {
    T* y = to + r * to_ld;
    const A* x = from + r * from_ld;
    if (accumulate) {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) store(y[c], static_cast<A>(y[c]) + scale * x[c]);
    } else {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) store(y[c], scale * x[c]);
    }
  }
}

}  // namespace switchyard::kernels
