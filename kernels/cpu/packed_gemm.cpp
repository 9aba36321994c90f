#include "kernels/cpu/packed_gemm.h"

#include <algorithm>

#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// A tile of C is kept in registers: kMr rows of two vectors. With the two of B and one of A that fills the 16
// registers of AVX2, or the 32 of AVX-512.
#ifdef __AVX512F__
constexpr int64_t kWidth = 16, kMr = 14;
#else
constexpr int64_t kWidth = 8, kMr = 6;
#endif
constexpr int64_t kNr = 2 * kWidth;

// A panel of B (kKc x kNr) stays in the first-level cache, a block of A (kMc x kKc) in the second, a block of
// B (kKc x kNc) in the third.
constexpr int64_t kKc = 256, kMc = 32 * kMr, kNc = 64 * kNr;

using Vector = float __attribute__((vector_size(kWidth * 4)));
using Unaligned = float __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
using Four = float __attribute__((vector_size(16)));
using FourUnaligned = float __attribute__((vector_size(16), aligned(4), may_alias));
using TwoUnaligned = float __attribute__((vector_size(8), aligned(4), may_alias));

Four load_four(const float* x) { return *reinterpret_cast<const FourUnaligned*>(x); }

Four load_four(const BF16* x) {
  using Bits = uint32_t __attribute__((vector_size(16)));
  using Half = uint16_t __attribute__((vector_size(8), aligned(2), may_alias));
  return reinterpret_cast<Four>(__builtin_convertvector(*reinterpret_cast<const Half*>(x), Bits) << 16);
}

void store_four(float* y, Four x) { *reinterpret_cast<FourUnaligned*>(y) = x; }
void store_two(float* y, Four x) {
  *reinterpret_cast<TwoUnaligned*>(y) = __builtin_shufflevector(x, x, 0, 1);
}

// c[kMr, kNr] (+)= a b, of panels a [k, kMr] and b [k, kNr]
void tile(int64_t k, const float* a, const float* b, float* c, int64_t ldc, bool add) {
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
      const float x = a[l * kMr + i];
      sum[i][0] += x * b0;
      sum[i][1] += x * b1;
    }
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kMr; ++i) {
    auto* row = reinterpret_cast<Unaligned*>(c + i * ldc);
    row[0] = add ? row[0] + sum[i][0] : sum[i][0];
    row[1] = add ? row[1] + sum[i][1] : sum[i][1];
  }
}

// to[l * kPanel + r] = from[r * ld + l] for four rows (or the first two) and four columns
template <int64_t kPanel, bool kFirstTwo, class T>
void transpose_four(float* to, const T* r0, const T* r1, const T* r2, const T* r3) {
  const Four x0 = load_four(r0), x1 = load_four(r1), x2 = load_four(r2), x3 = load_four(r3);
  const Four low01 = __builtin_shufflevector(x0, x1, 0, 4, 1, 5),
             high01 = __builtin_shufflevector(x0, x1, 2, 6, 3, 7);
  const Four low23 = __builtin_shufflevector(x2, x3, 0, 4, 1, 5),
             high23 = __builtin_shufflevector(x2, x3, 2, 6, 3, 7);
  const Four y[] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                    __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                    __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                    __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
#pragma GCC unroll 4
  for (int64_t l = 0; l < 4; ++l) {
    if constexpr (kFirstTwo)
      store_two(to + l * kPanel, y[l]);
    else
      store_four(to + l * kPanel, y[l]);
  }
}

// panel[l, r] = from[r, l] for r < rows, 0 for the rest of kPanel
template <int64_t kPanel, class T>
void pack_rows(float* panel, const T* from, int64_t ld, int64_t rows, int64_t k) {
  int64_t l = 0;
  if (rows == kPanel) {
    for (; l + 4 <= k; l += 4) {
      const T* x = from + l;
      float* to = panel + l * kPanel;
#pragma GCC unroll 8
      for (int64_t r = 0; r + 4 <= kPanel; r += 4)
        transpose_four<kPanel, false>(to + r, x + r * ld, x + (r + 1) * ld, x + (r + 2) * ld,
                                      x + (r + 3) * ld);
      if constexpr (kPanel % 4 == 2) {
        const T *x0 = x + (kPanel - 2) * ld, *x1 = x0 + ld;
        transpose_four<kPanel, true>(to + kPanel - 2, x0, x1, x1, x1);
      }
    }
  }
  for (; l < k; ++l)
    for (int64_t r = 0; r < kPanel; ++r)
      panel[l * kPanel + r] = r < rows ? static_cast<float>(from[r * ld + l]) : 0;
}

// panel[l, c] = from[l, c] for c < cols, 0 for the rest of kPanel
template <int64_t kPanel, class T>
void pack_columns(float* panel, const T* from, int64_t ld, int64_t cols, int64_t k) {
  for (int64_t l = 0; l < k; ++l, panel += kPanel, from += ld) {
    if (cols < kPanel) {
      for (int64_t c = 0; c < kPanel; ++c) panel[c] = c < cols ? static_cast<float>(from[c]) : 0;
      continue;
    }
#pragma GCC unroll 8
    for (int64_t c = 0; c + 4 <= kPanel; c += 4) store_four(panel + c, load_four(from + c));
    if constexpr (kPanel % 4 == 2)
      for (int64_t c = kPanel - 2; c < kPanel; ++c) panel[c] = static_cast<float>(from[c]);
  }
}

// Panels of kPanel rows of op(X) [size, k], one after the other. `along`: x[r, l]; else x[l, r].
template <int64_t kPanel, class T>
void pack(float* panels, const T* x, int64_t ld, int64_t size, int64_t k, bool along) {
  for (int64_t r = 0; r < size; r += kPanel, panels += kPanel * k) {
    const int64_t rows = std::min(kPanel, size - r);
    if (along)
      pack_rows<kPanel>(panels, x + r * ld, ld, rows, k);
    else
      pack_columns<kPanel>(panels, x + r, ld, rows, k);
  }
}

// The tile of C at `c`, of which rows x cols exist; a ragged one goes through a whole tile of its own.
void tile_or_edge(int64_t k, const float* a, const float* b, float* c, int64_t ldc, bool add, int64_t rows,
                  int64_t cols) {
  if (rows >= kMr && cols >= kNr) return tile(k, a, b, c, ldc, add);
  alignas(64) float edge[kMr * kNr];
  tile(k, a, b, edge, kNr, false);
  for (int64_t r = 0; r < std::min(kMr, rows); ++r)
    for (int64_t q = 0; q < std::min(kNr, cols); ++q)
      c[r * ldc + q] = add ? c[r * ldc + q] + edge[r * kNr + q] : edge[r * kNr + q];
}

// c[m, n] (+)= a b, of panels. Short sums move more of C than of anything else: then C is walked row by row.
void multiply_panels(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c, int64_t ldc,
                     bool add) {
  constexpr int64_t kSmallB = 32 * 1024;  // elements: a quarter of a small second-level cache
  const auto at = [&](int64_t i, int64_t j) {
    tile_or_edge(k, a + i * k, b + j * k, c + i * ldc + j, ldc, add, m - i, n - j);
  };
  if (n * k <= kSmallB) {
    for (int64_t i = 0; i < m; i += kMr)
      for (int64_t j = 0; j < n; j += kNr) at(i, j);
  } else {
    for (int64_t j = 0; j < n; j += kNr)
      for (int64_t i = 0; i < m; i += kMr) at(i, j);
  }
}

}  // namespace

bool has_packed_gemm() {
#if defined(__AVX2__) && defined(__FMA__)
  return true;
#else
  return false;
#endif
}

template <class T>
void packed_gemm(const Matmul<T, float>& p) {
  thread_local Scratch<float> a_scratch, b_scratch;
  float* const a = a_scratch.reserve(kMc * kKc);
  for (int64_t j = 0; j < p.n; j += kNc) {
    const int64_t n = std::min(kNc, p.n - j);
    for (int64_t l = 0; l < p.k; l += kKc) {
      const int64_t k = std::min(kKc, p.k - l);
      float* const b = b_scratch.reserve((n + kNr) * kKc);
      pack<kNr>(b, p.transpose_b ? p.b + j * p.ldb + l : p.b + l * p.ldb + j, p.ldb, n, k, p.transpose_b);
      for (int64_t i = 0; i < p.m; i += kMc) {
        const int64_t m = std::min(kMc, p.m - i);
        pack<kMr>(a, p.transpose_a ? p.a + l * p.lda + i : p.a + i * p.lda + l, p.lda, m, k, !p.transpose_a);
        multiply_panels(m, n, k, a, b, p.c + i * p.ldc + j, p.ldc, p.accumulate || l > 0);
      }
    }
  }
}

template void packed_gemm(const Matmul<float, float>&);
template void packed_gemm(const Matmul<BF16, float>&);

}  // namespace switchyard::kernels
