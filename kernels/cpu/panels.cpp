#include "kernels/cpu/panels.h"

// Vectors are passed within this file alone, so it does not matter how a processor
// without AVX would pass them.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace switchyard::kernels {
namespace {

// Four or eight elements of a panel. Pairs travel as the bits of floats: nothing computes with them.
SWITCHYARD_UNALIGNED(Two, float, 8, 2);
SWITCHYARD_UNALIGNED(Four, float, 16, 2);
SWITCHYARD_UNALIGNED(Eight, float, 32, 2);
SWITCHYARD_UNALIGNED(FourHalves, uint16_t, 8, 2);
SWITCHYARD_UNALIGNED(EightHalves, uint16_t, 16, 2);
using FourBits = uint32_t __attribute__((vector_size(16)));
using EightBits = uint32_t __attribute__((vector_size(32)));

// What stands at x: floats, pairs (not with every panel's width), or bf16 values to be widened. A bf16 is the
// upper half of a float32.
inline Four load_four(const float* x) { return *reinterpret_cast<const Four*>(x); }
[[maybe_unused]] inline Four load_four(const Pair* x) { return *reinterpret_cast<const Four*>(x); }
inline Four load_four(const BF16* x) {
  return reinterpret_cast<Four>(__builtin_convertvector(*reinterpret_cast<const FourHalves*>(x), FourBits)
                                << 16);
}
inline Eight load_eight(const float* x) { return *reinterpret_cast<const Eight*>(x); }
inline Eight load_eight(const Pair* x) { return *reinterpret_cast<const Eight*>(x); }
inline Eight load_eight(const BF16* x) {
  return reinterpret_cast<Eight>(__builtin_convertvector(*reinterpret_cast<const EightHalves*>(x), EightBits)
                                 << 16);
}

template <class E, class V>
void put(E* y, V x) {
#ifdef __clang__  // its V has lost the alignment; GCC's has not, and its copies are slower
  std::memcpy(static_cast<void*>(y), &x, sizeof(x));
#else
  *reinterpret_cast<V*>(y) = x;
#endif
}

// What a row of X is read as.
template <class E, class T>
using Source = std::conditional_t<std::is_same_v<E, Pair>, Pair, T>;

// to[l * kPanel + r] = row(r)[l] for eight rows and eight steps
template <int64_t kPanel, class E, class RowOf>
[[gnu::always_inline]] inline void transpose_eight(E* to, const RowOf& row) {
  // Steps. The rows are as many streams, more than the processor foresees itself.
  constexpr int64_t kAhead = 64;
  Eight x[8], y[8];
#pragma GCC unroll 8
  for (int64_t r = 0; r < 8; ++r) {
    x[r] = load_eight(row(r));
    __builtin_prefetch(row(r) + kAhead);
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

// The same for four steps of kRows rows, four or two.
template <int64_t kPanel, int64_t kRows, class E, class RowOf>
[[gnu::always_inline]] inline void transpose_four(E* to, const RowOf& row) {
  const Four x0 = load_four(row(0)), x1 = load_four(row(1)), x2 = load_four(row(kRows - 2)),
             x3 = load_four(row(kRows - 1));
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
      put(to + l * kPanel, Two(__builtin_shufflevector(y[l], y[l], 0, 1)));
    else
      put(to + l * kPanel, y[l]);
  }
}

// Whole steps of kPanel rows, from row(r, l) on; returns the steps done.
template <int64_t kPanel, class E, class RowOf>
int64_t transpose(E* panel, const RowOf& row, int64_t steps) {
  int64_t l = 0;
  if constexpr (kPanel % 8 == 0) {
    for (; l + 8 <= steps; l += 8)
#pragma GCC unroll 4
      for (int64_t r = 0; r < kPanel; r += 8)
        transpose_eight<kPanel>(panel + l * kPanel + r, [&](int64_t i) { return row(r + i, l); });
  } else {
    for (; l + 4 <= steps; l += 4) {
#pragma GCC unroll 4
      for (int64_t r = 0; r + 4 <= kPanel; r += 4)
        transpose_four<kPanel, 4>(panel + l * kPanel + r, [&](int64_t i) { return row(r + i, l); });
      transpose_four<kPanel, 2>(panel + l * kPanel + kPanel - 2,
                                [&](int64_t i) { return row(kPanel - 2 + i, l); });
    }
  }
  return l;
}

// Element l of a row of k values.
template <class E, class T>
E element(const T* row, int64_t l, int64_t k) {
  if constexpr (std::is_same_v<E, Pair>)
    return {row[2 * l], 2 * l + 1 < k ? row[2 * l + 1] : BF16()};
  else
    return static_cast<E>(row[l]);
}

// panel[l, r] = 0 for the steps from l on
template <int64_t kPanel, class E>
void clear_steps(E* panel, int64_t l, int64_t length) {
  std::fill(panel + l * kPanel, panel + length * kPanel, E{});
}

// panel[l, r] = from[r, l] for r < rows, 0 for the rest of kPanel
template <int64_t kPanel, class E, class T>
void pack_rows(E* panel, const T* from, int64_t ld, int64_t rows, int64_t k) {
  using S = Source<E, T>;
  alignas(64) static constexpr uint32_t kZeros[8] = {};
  const auto* nothing = reinterpret_cast<const S*>(kZeros);
  const auto row = [=](int64_t r, int64_t l) { return reinterpret_cast<const S*>(from + r * ld) + l; };
  const auto row_or_zeros = [=](int64_t r, int64_t l) { return r < rows ? row(r, l) : nothing; };
  const int64_t whole = k / kPerStep<E>;  // steps
  int64_t l =
      rows == kPanel ? transpose<kPanel>(panel, row, whole) : transpose<kPanel>(panel, row_or_zeros, whole);
  for (; l < steps<E>(k); ++l)
    for (int64_t r = 0; r < kPanel; ++r)
      panel[l * kPanel + r] = r < rows ? element<E>(from + r * ld, l, k) : E{};
}

constexpr int64_t kTogether = 8;   // panels
constexpr int64_t kRowsAhead = 8;  // of X

// Columns c .. c + 3 or c + 7 of a step: one row of X, or two interleaved.
template <class T>
struct RowOfColumns {
  const T* x;
  int64_t ld;
  void prefetch(int64_t c) const { __builtin_prefetch(x + kRowsAhead * ld + c); }
  Four four(int64_t c) const { return load_four(x + c); }
  Eight eight(int64_t c) const { return load_eight(x + c); }
  Acc<T> one(int64_t c) const { return static_cast<Acc<T>>(x[c]); }
};

struct PairOfRows {
  const BF16 *first, *second;
  int64_t ld;
  void prefetch(int64_t c) const {
    __builtin_prefetch(first + kRowsAhead * ld + c);
    __builtin_prefetch(first + (kRowsAhead + 1) * ld + c);
  }
  Four four(int64_t c) const {
    const auto x = *reinterpret_cast<const FourHalves*>(first + c),
               y = *reinterpret_cast<const FourHalves*>(second + c);
    return reinterpret_cast<Four>(__builtin_shufflevector(x, y, 0, 4, 1, 5, 2, 6, 3, 7));
  }
  Eight eight(int64_t c) const {
    const auto x = *reinterpret_cast<const EightHalves*>(first + c),
               y = *reinterpret_cast<const EightHalves*>(second + c);
    return reinterpret_cast<Eight>(
        __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
  }
  Pair one(int64_t c) const { return {first[c], second[c]}; }
};

template <int64_t kPanel, class E, class Step>
[[gnu::always_inline]] inline void put_columns(E* to, const Step& step, int64_t c) {
  int64_t i = 0;
#pragma GCC unroll 8
  for (; i + 8 <= kPanel; i += 8) put(to + i, step.eight(c + i));
#pragma GCC unroll 2
  for (; i + 4 <= kPanel; i += 4) put(to + i, step.four(c + i));
#pragma GCC unroll 2
  for (; i < kPanel; ++i) to[i] = step.one(c + i);
}

// panels[p, l, c] = step(l)[p * kPanel + c] for `count` whole panels of `length` steps each. Several at once,
// so that a row of X is read in long pieces.
template <int64_t kPanel, class E, class StepOf>
void pack_columns(E* panels, const StepOf& step_of, int64_t count, int64_t steps, int64_t length) {
  for (int64_t l = 0; l < steps; ++l) {
    const auto step = step_of(l);
    for (int64_t p = 0; p < count; ++p) {
      step.prefetch(p * kPanel);
      put_columns<kPanel>(panels + (p * length + l) * kPanel, step, p * kPanel);
    }
  }
}

// panel[l, c] = step(l)[c] for c < cols, 0 for the rest of kPanel
template <int64_t kPanel, class E, class StepOf>
void pack_last_columns(E* panel, const StepOf& step_of, int64_t cols, int64_t steps) {
  for (int64_t l = 0; l < steps; ++l) {
    const auto step = step_of(l);
    for (int64_t c = 0; c < kPanel; ++c) panel[l * kPanel + c] = c < cols ? step.one(c) : E{};
  }
}

// All columns; step_of(l, c): step l from column c on.
template <int64_t kPanel, class E, class StepOf>
void pack_all_columns(E* panels, const StepOf& step_of, int64_t size, int64_t steps, int64_t length) {
  const int64_t count = size / kPanel, whole = count * kPanel;
  for (int64_t p = 0; p < count; p += kTogether)
    pack_columns<kPanel>(
        panels + p * kPanel * length, [&](int64_t l) { return step_of(l, p * kPanel); },
        std::min(kTogether, count - p), steps, length);
  if (whole < size)
    pack_last_columns<kPanel>(
        panels + whole * length, [&](int64_t l) { return step_of(l, whole); }, size - whole, steps);
}

// In double nothing hurries.
template <int64_t kPanel>
void pack_plainly(double* panels, const double* x, int64_t ld, int64_t size, int64_t k, bool along) {
  for (int64_t r = 0; r < whole_panels(size, kPanel); ++r)
    for (int64_t l = 0; l < k; ++l)
      panels[r / kPanel * kPanel * k + l * kPanel + r % kPanel] = r >= size ? 0
                                                                  : along   ? x[r * ld + l]
                                                                            : x[l * ld + r];
}

}  // namespace

template <int64_t kPanel, class E, class T>
void pack(E* panels, const T* x, int64_t ld, int64_t size, int64_t k, bool along, int64_t length) {
  for (int64_t r = 0; r < size; r += kPanel) clear_steps<kPanel>(panels + r * length, steps<E>(k), length);
  if constexpr (std::is_same_v<T, double>) {
    pack_plainly<kPanel>(panels, x, ld, size, k, along);
  } else if (along) {
    for (int64_t r = 0; r < size; r += kPanel)
      pack_rows<kPanel>(panels + r * length, x + r * ld, ld, std::min(kPanel, size - r), k);
  } else if constexpr (std::is_same_v<E, Pair>) {
    alignas(64) static constexpr uint16_t kZeros[kTogether * kPanel] = {};  // the row after an odd last one
    const auto* nothing = reinterpret_cast<const BF16*>(kZeros);
    const auto step_of = [=](int64_t l, int64_t c) {
      const BF16* first = x + 2 * l * ld + c;
      return PairOfRows{first, 2 * l + 1 < k ? first + ld : nothing, ld};
    };
    pack_all_columns<kPanel>(panels, step_of, size, steps<Pair>(k), length);
  } else {
    pack_all_columns<kPanel>(
        panels,
        [=](int64_t l, int64_t c) {
          return RowOfColumns<T>{x + l * ld + c, ld};
        },
        size, k, length);
  }
}

#define SWITCHYARD_INSTANTIATE(kPanel, E, T) \
  template void pack<kPanel>(E*, const T*, int64_t, int64_t, int64_t, bool, int64_t);
SWITCHYARD_INSTANTIATE(kMr, float, float)
SWITCHYARD_INSTANTIATE(kMr, float, BF16)
SWITCHYARD_INSTANTIATE(kMr, Pair, BF16)
SWITCHYARD_INSTANTIATE(kNr, float, float)
SWITCHYARD_INSTANTIATE(kNr, float, BF16)
SWITCHYARD_INSTANTIATE(kNr, Pair, BF16)
SWITCHYARD_INSTANTIATE(kNr, double, double)
#ifndef __AVX512F__
SWITCHYARD_INSTANTIATE(32, Pair, BF16)  // kBlock of kernels/cpu/matrix_registers.h, elsewhere kNr
#endif
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
