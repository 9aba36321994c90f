#include "kernels/cpu/panels.h"

// Vectors are passed within this file alone, so it does not matter how a processor without AVX would pass
// them.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace switchyard::kernels {
namespace {

using Two = float __attribute__((vector_size(8), aligned(4), may_alias));
using Four = float __attribute__((vector_size(16), aligned(4), may_alias));
using Eight = float __attribute__((vector_size(32), aligned(4), may_alias));
using FourHalves = uint16_t __attribute__((vector_size(8), aligned(2), may_alias));
using EightHalves = uint16_t __attribute__((vector_size(16), aligned(2), may_alias));
using FourBits = uint32_t __attribute__((vector_size(16)));
using EightBits = uint32_t __attribute__((vector_size(32)));

Four load_four(const float* x) { return *reinterpret_cast<const Four*>(x); }
Eight load_eight(const float* x) { return *reinterpret_cast<const Eight*>(x); }

// A bf16 is the upper half of a float32.
Four load_four(const BF16* x) {
  return reinterpret_cast<Four>(__builtin_convertvector(*reinterpret_cast<const FourHalves*>(x), FourBits)
                                << 16);
}
Eight load_eight(const BF16* x) {
  return reinterpret_cast<Eight>(__builtin_convertvector(*reinterpret_cast<const EightHalves*>(x), EightBits)
                                 << 16);
}

void put(float* y, Two x) { *reinterpret_cast<Two*>(y) = x; }
void put(float* y, Four x) { *reinterpret_cast<Four*>(y) = x; }
void put(float* y, Eight x) { *reinterpret_cast<Eight*>(y) = x; }

// Elements ahead in a row: the rows are as many streams, more than the processor foresees itself.
constexpr int64_t kAhead = 64;

// to[l * kPanel + r] = from[r * ld + l] for eight rows and eight columns
template <int64_t kPanel, class T>
void transpose_eight(float* to, const T* from, int64_t ld) {
  Eight x[8], y[8];
#pragma GCC unroll 8
  for (int64_t r = 0; r < 8; ++r) {
    x[r] = load_eight(from + r * ld);
    __builtin_prefetch(from + r * ld + kAhead);
  }
#pragma GCC unroll 4
  for (int64_t r = 0; r < 8; r += 2) {
    y[r] = __builtin_shufflevector(x[r], x[r + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    y[r + 1] = __builtin_shufflevector(x[r], x[r + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 2
  for (int64_t r = 0; r < 8; r += 4) {
    x[r] = __builtin_shufflevector(y[r], y[r + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    x[r + 1] = __builtin_shufflevector(y[r], y[r + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    x[r + 2] = __builtin_shufflevector(y[r + 1], y[r + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    x[r + 3] = __builtin_shufflevector(y[r + 1], y[r + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int64_t l = 0; l < 4; ++l) {
    put(to + l * kPanel, __builtin_shufflevector(x[l], x[l + 4], 0, 1, 2, 3, 8, 9, 10, 11));
    put(to + (l + 4) * kPanel, __builtin_shufflevector(x[l], x[l + 4], 4, 5, 6, 7, 12, 13, 14, 15));
  }
}

// The same for four columns and four rows, or the first two of them.
template <int64_t kPanel, int64_t kRows, class T>
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
    if constexpr (kRows == 2)
      put(to + l * kPanel, __builtin_shufflevector(y[l], y[l], 0, 1));
    else
      put(to + l * kPanel, y[l]);
  }
}

// panel[l, r] = from[r, l] for r < rows, 0 for the rest of kPanel
template <int64_t kPanel, class T>
void pack_rows(float* panel, const T* from, int64_t ld, int64_t rows, int64_t k) {
  int64_t l = 0;
  if (rows == kPanel && kPanel % 8 == 0) {
    for (; l + 8 <= k; l += 8)
#pragma GCC unroll 4
      for (int64_t r = 0; r < kPanel; r += 8)
        transpose_eight<kPanel>(panel + l * kPanel + r, from + r * ld + l, ld);
  } else if (rows == kPanel) {
    for (; l + 4 <= k; l += 4) {
      const T* x = from + l;
      float* to = panel + l * kPanel;
#pragma GCC unroll 4
      for (int64_t r = 0; r + 4 <= kPanel; r += 4)
        transpose_four<kPanel, 4>(to + r, x + r * ld, x + (r + 1) * ld, x + (r + 2) * ld, x + (r + 3) * ld);
      const T *x0 = x + (kPanel - 2) * ld, *x1 = x0 + ld;
      transpose_four<kPanel, 2>(to + kPanel - 2, x0, x1, x1, x1);
    }
  }
  for (; l < k; ++l)
    for (int64_t r = 0; r < kPanel; ++r)
      panel[l * kPanel + r] = r < rows ? static_cast<float>(from[r * ld + l]) : 0;
}

// panels[p, l, c] = from[l, p * kPanel + c] for `count` whole panels. Several at once, so that a row of
// `from` is read in long pieces.
template <int64_t kPanel, class T>
void pack_columns(float* panels, const T* from, int64_t ld, int64_t count, int64_t k) {
  constexpr int64_t kRowsAhead = 8;
  for (int64_t l = 0; l < k; ++l, from += ld) {
    const T* x = from;
    float* to = panels + l * kPanel;
    for (int64_t p = 0; p < count; ++p, x += kPanel, to += kPanel * k) {
      __builtin_prefetch(x + kRowsAhead * ld);
#pragma GCC unroll 8
      for (int64_t c = 0; c + 4 <= kPanel; c += 4) put(to + c, load_four(x + c));
      if constexpr (kPanel % 4 == 2)
        for (int64_t c = kPanel - 2; c < kPanel; ++c) to[c] = static_cast<float>(x[c]);
    }
  }
}

// In double nothing hurries.
template <int64_t kPanel>
void pack_rows(double* panel, const double* from, int64_t ld, int64_t rows, int64_t k) {
  for (int64_t l = 0; l < k; ++l)
    for (int64_t r = 0; r < kPanel; ++r) panel[l * kPanel + r] = r < rows ? from[r * ld + l] : 0;
}

template <int64_t kPanel>
void pack_columns(double* panels, const double* from, int64_t ld, int64_t count, int64_t k) {
  for (int64_t p = 0; p < count; ++p)
    for (int64_t l = 0; l < k; ++l)
      std::copy_n(from + l * ld + p * kPanel, kPanel, panels + (p * k + l) * kPanel);
}

// panel[l, c] = from[l, c] for c < cols, 0 for the rest of kPanel
template <int64_t kPanel, class T>
void pack_last_columns(Acc<T>* panel, const T* from, int64_t ld, int64_t cols, int64_t k) {
  for (int64_t l = 0; l < k; ++l, from += ld)
    for (int64_t c = 0; c < kPanel; ++c) panel[l * kPanel + c] = c < cols ? static_cast<Acc<T>>(from[c]) : 0;
}

}  // namespace

template <int64_t kPanel, class T>
void pack(Acc<T>* panels, const T* x, int64_t ld, int64_t size, int64_t k, bool along) {
  if (along) {
    for (int64_t r = 0; r < size; r += kPanel)
      pack_rows<kPanel>(panels + r * k, x + r * ld, ld, std::min(kPanel, size - r), k);
    return;
  }
  constexpr int64_t kTogether = 8;
  const int64_t count = size / kPanel, whole = count * kPanel;
  for (int64_t p = 0; p < count; p += kTogether)
    pack_columns<kPanel>(panels + p * kPanel * k, x + p * kPanel, ld, std::min(kTogether, count - p), k);
  if (whole < size) pack_last_columns<kPanel>(panels + whole * k, x + whole, ld, size - whole, k);
}

template void pack<kMr>(float*, const float*, int64_t, int64_t, int64_t, bool);
template void pack<kMr>(float*, const BF16*, int64_t, int64_t, int64_t, bool);
template void pack<kNr>(float*, const float*, int64_t, int64_t, int64_t, bool);
template void pack<kNr>(float*, const BF16*, int64_t, int64_t, int64_t, bool);
template void pack<kNr>(double*, const double*, int64_t, int64_t, int64_t, bool);

}  // namespace switchyard::kernels
