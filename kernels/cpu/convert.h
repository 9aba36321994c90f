// Blocks of a matrix between their storage type T and the type A = Acc<T> in which they are computed with.
#pragma once

#include "kernels/cpu/loops.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

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

#ifdef __AVX512BF16__
// y[c] = scale * x[c]. GCC knows no vector code for the instruction that rounds, which makes denormal numbers
// zeros.
inline void round_row(BF16* y, const float* x, int64_t n, float scale) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t c = 0; c < n; c += 16) {
    const auto exists = static_cast<__mmask16>(n - c >= 16 ? 0xffff : (1 << (n - c)) - 1);
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_mul_ps(factor, _mm512_maskz_loadu_ps(exists, x + c)));
    _mm256_mask_storeu_epi16(y + c, exists, reinterpret_cast<__m256i>(rounded));
  }
}
#else
inline void round_row(BF16* y, const float* x, int64_t n, float scale) {
#pragma omp simd
  for (int64_t c = 0; c < n; ++c) store(y[c], scale * x[c]);
}
#endif

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
    } else if constexpr (std::is_same_v<T, BF16>) {
      round_row(y, x, cols, scale);
    } else {
#pragma omp simd
      for (int64_t c = 0; c < cols; ++c) y[c] = static_cast<T>(scale * x[c]);
    }
  }
}

}  // namespace switchyard::kernels
