#include "kernels/cpu/matrix_panels.h"

#include "kernels/cpu/loops.h"
#include "kernels/cpu/unaligned.h"

// Vectors are passed within this file alone, so it does not matter how a processor without AVX would pass
// them.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace switchyard::kernels {
namespace {

using Sixteen = uint32_t __attribute__((vector_size(64)));
SWITCHYARD_UNALIGNED(Halves, uint16_t, 32, 2);
SWITCHYARD_UNALIGNED(Stored, uint32_t, 64, 4);
using Quarter = uint64_t __attribute__((vector_size(64)));

// 16 values of two rows as pairs
inline Sixteen interleave(const BF16* first, const BF16* second) {
  const auto x = *reinterpret_cast<const Halves*>(first), y = *reinterpret_cast<const Halves*>(second);
  using Wide = uint16_t __attribute__((vector_size(64)));
  const Wide pairs = __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
                                             24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return reinterpret_cast<Sixteen>(pairs);
}

// x[i][j] = x[j][i], in four rounds: single values, twos, and fours of values change places.
[[gnu::always_inline]] inline void transpose(Sixteen (&x)[16]) {
  Sixteen y[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    y[i] = __builtin_shufflevector(x[i], x[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    y[i + 1] =
        __builtin_shufflevector(x[i], x[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      x[i + 2 * h] = __builtin_shufflevector(y[i + h], y[i + h + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25,
                                             12, 13, 28, 29);
      x[i + 2 * h + 1] = __builtin_shufflevector(y[i + h], y[i + h + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11,
                                                 26, 27, 14, 15, 30, 31);
    }
    // x[4 q + c] holds column 4 f + c of rows 4 q .. 4 q + 3 in its four f.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const Sixteen low01 = __builtin_shufflevector(x[c], x[4 + c], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20,
                                                  21, 22, 23),
                  high01 = __builtin_shufflevector(x[c], x[4 + c], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26,
                                                   27, 28, 29, 30, 31),
                  low23 = __builtin_shufflevector(x[8 + c], x[12 + c], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19,
                                                  20, 21, 22, 23),
                  high23 = __builtin_shufflevector(x[8 + c], x[12 + c], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25,
                                                   26, 27, 28, 29, 30, 31);
    y[c] = __builtin_shufflevector(low01, low23, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    y[4 + c] =
        __builtin_shufflevector(low01, low23, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    y[8 + c] =
        __builtin_shufflevector(high01, high23, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    y[12 + c] =
        __builtin_shufflevector(high01, high23, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

// A step of one panel from x[r, l] on: `rows` rows of `k` values, of kBlock and 2 kStep.
void pack_step(Pair* to, const BF16* x, int64_t ld, int64_t rows, int64_t k) {
  auto* values = reinterpret_cast<BF16*>(to);
  constexpr int64_t kValues = 2 * kStep;
  if (rows == kBlock && k == kValues) {
#pragma GCC unroll 8
    for (int64_t r = 0; r < kBlock; ++r)
      std::memcpy(values + r * kValues, x + r * ld, kValues * sizeof(BF16));
    return;
  }
  for (int64_t r = 0; r < kBlock; ++r) {
    const int64_t n = r < rows ? k : 0;
    std::copy_n(x + r * ld, n, values + r * kValues);
    std::fill_n(values + r * kValues + n, kValues - n, BF16());
  }
}

// The same from x[l, r] on.
void pack_step_across(Pair* to, const BF16* x, int64_t ld, int64_t rows, int64_t k) {
  constexpr int64_t kHalf = kBlock / 2;
  static_assert(kHalf == 16 && kStep == 16);
  if (rows < kBlock || k < 2 * kStep) {
    for (int64_t r = 0; r < kBlock; ++r)
      for (int64_t l = 0; l < 2 * kStep; ++l)
        reinterpret_cast<BF16*>(to)[r * 2 * kStep + l] = r < rows && l < k ? x[l * ld + r] : BF16();
    return;
  }
#pragma GCC unroll 2
  for (int64_t r = 0; r < kBlock; r += kHalf) {
    Sixteen pairs[kStep];
#pragma GCC unroll 16
    for (int64_t l = 0; l < kStep; ++l) pairs[l] = interleave(x + 2 * l * ld + r, x + (2 * l + 1) * ld + r);
    transpose(pairs);
#pragma GCC unroll 16
    for (int64_t i = 0; i < kHalf; ++i) *reinterpret_cast<Stored*>(to + (r + i) * kStep) = pairs[i];
  }
}

}  // namespace

void pack_matrix_rows(Pair* panels, const BF16* x, int64_t ld, int64_t size, int64_t k, bool along) {
  const int64_t length = round_up(steps<Pair>(k), kStep);
  if (along) {
    for (int64_t r = 0; r < size; r += kBlock)
      for (int64_t l = 0; l < length; l += kStep)
        pack_step(panels + r * length + l * kBlock, x + r * ld + 2 * l, ld, std::min(kBlock, size - r),
                  std::min(2 * kStep, k - 2 * l));
    return;
  }
  for (int64_t l = 0; l < length; l += kStep)
    for (int64_t r = 0; r < size; r += kBlock)
      pack_step_across(panels + r * length + l * kBlock, x + 2 * l * ld + r, ld, std::min(kBlock, size - r),
                       std::min(2 * kStep, k - 2 * l));
}

void transpose_block(float* to, const float* from, int64_t ld) {
  constexpr int64_t kHalf = kBlock / 2;
  for (int64_t i = 0; i < kBlock; i += kHalf)
    for (int64_t j = 0; j < kBlock; j += kHalf) {
      Sixteen part[kHalf];
#pragma GCC unroll 16
      for (int64_t r = 0; r < kHalf; ++r) part[r] = *reinterpret_cast<const Stored*>(from + (j + r) * ld + i);
      transpose(part);
#pragma GCC unroll 16
      for (int64_t r = 0; r < kHalf; ++r) *reinterpret_cast<Stored*>(to + (i + r) * kBlock + j) = part[r];
    }
}

}  // namespace switchyard::kernels
