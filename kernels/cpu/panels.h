// Panels: the order in which the innermost loop of a float32 product reads its operands, and that loop.
//
// A panel of B holds kNr columns, one row after the other: b[l * kNr + c]. A panel of A holds kMr rows:
// a[l * kMr + r]. Rows and columns that do not exist are zeros, so that every tile of C is whole. kMr rows of
// A may also be read in place (AInPlace), which pays where they are used a few times only.
#pragma once

#include <algorithm>

#include "kernels/dtype.h"

namespace switchyard::kernels {

// A tile of C is kept in registers: kMr rows of two vectors. With the two of B and one of A that fills the 16
// registers of AVX2, or the 32 of AVX-512.
#ifdef __AVX512F__
inline constexpr int64_t kWidth = 16, kMr = 14;
#else
inline constexpr int64_t kWidth = 8, kMr = 6;
#endif
inline constexpr int64_t kNr = 2 * kWidth;

inline constexpr int64_t whole_panels(int64_t size, int64_t panel) {
  return (size + panel - 1) / panel * panel;
}

// A distance between rows of at least `cols` elements, for scratch memory, at which the rows do not compete
// for the same sets of the cache: an odd number or twice an odd number of cache lines of float32.
inline constexpr int64_t padded_stride(int64_t cols) {
  const int64_t lines = (cols + 15) / 16;
  return 16 * (lines % 4 == 0 ? lines + 1 : lines);
}

using Vector = float __attribute__((vector_size(kWidth * 4)));
using UnalignedVector = float __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));

// Element (i, l) of kMr rows of A.
struct APanel {
  const float* data;
  float at(int64_t i, int64_t l) const { return data[l * kMr + i]; }
};

template <class F>
struct AInPlace {
  const F* data;
  int64_t row, step;  // from a row to the next, and from l to the next
  F at(int64_t i, int64_t l) const { return data[i * row + l * step]; }
};

// c[kMr, kNr] = a b, or c += a b if `add`; b a panel
template <class A>
[[gnu::always_inline]] inline void tile(int64_t k, A a, const float* b, float* c, int64_t ldc, bool add) {
  Vector sum[kMr][2];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kMr; ++i) {
    sum[i][0] = sum[i][1] = Vector{};
    if (add) __builtin_prefetch(c + i * ldc);
  }
  for (int64_t l = 0; l < k; ++l) {
    const Vector b0 = *reinterpret_cast<const Vector*>(b + l * kNr);
    const Vector b1 = *reinterpret_cast<const Vector*>(b + l * kNr + kWidth);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kMr; ++i) {
      const float x = a.at(i, l);
      sum[i][0] += x * b0;
      sum[i][1] += x * b1;
    }
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kMr; ++i) {
    auto* row = reinterpret_cast<UnalignedVector*>(c + i * ldc);
    row[0] = add ? row[0] + sum[i][0] : sum[i][0];
    row[1] = add ? row[1] + sum[i][1] : sum[i][1];
  }
}

// The same in double, for gradient checks.
template <class A>
void tile(int64_t k, A a, const double* b, double* c, int64_t ldc, bool add) {
  double sum[kMr][kNr] = {};
  for (int64_t l = 0; l < k; ++l)
    for (int64_t i = 0; i < kMr; ++i)
      for (int64_t j = 0; j < kNr; ++j) sum[i][j] += a.at(i, l) * b[l * kNr + j];
  for (int64_t i = 0; i < kMr; ++i)
    for (int64_t j = 0; j < kNr; ++j) c[i * ldc + j] = add ? c[i * ldc + j] + sum[i][j] : sum[i][j];
}

// Panels of kPanel rows of op(X) [size, k], one after the other, bf16 widened.
// `along`: x[r, l]; else x[l, r].
// Instantiated for kMr with float and BF16, and kNr with float, BF16 and double.
template <int64_t kPanel, class T>
void pack(Acc<T>* panels, const T* x, int64_t ld, int64_t size, int64_t k, bool along);

}  // namespace switchyard::kernels
