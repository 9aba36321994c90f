// How CPU kernels cut their work. Every cut depends on sizes alone and every sum has a fixed order, so
// results have the same bits for every number of threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/dtype.h"

namespace switchyard::kernels {

// Elements below which a parallel region costs more than it saves.
inline constexpr int64_t kParallelFrom = 1 << 15;

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The bits of BF16(x).
[[gnu::always_inline]] inline uint16_t bf16_bits(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
  return static_cast<uint16_t>(x != x ? quiet : nearest);
}

// y = T(x). In loops that are to become vector code: GCC gives up on a temporary BF16, not on its bits.
template <class T>
[[gnu::always_inline]] inline void store(T& y, Acc<T> x) {
  if constexpr (std::is_same_v<T, BF16>)
    y.bits = bf16_bits(x);
  else
    y = x;
}

// x rounded to T and back
template <class T>
[[gnu::always_inline]] inline Acc<T> rounded(Acc<T> x) {
  if constexpr (std::is_same_v<T, BF16>)
    return std::bit_cast<float>(static_cast<uint32_t>(bf16_bits(x)) << 16);
  else
    return x;
}

// Calls f(begin, end) for consecutive chunks of [0, n). An element's place in its chunk decides whether
// vector or scalar code handles it, and that may decide its last bit: so chunks are fixed.
template <class F>
void for_chunks(int64_t n, F f) {
  constexpr int64_t kChunk = 4096;
  const int64_t chunks = (n + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(static) firstprivate(f) if (n >= kParallelFrom)
  for (int64_t c = 0; c < chunks; ++c) f(c * kChunk, std::min(n, (c + 1) * kChunk));
}

// Calls f(row) for every row; rows are independent of each other.
template <class F>
void for_rows(int64_t rows, int64_t cols, F f) {
#pragma omp parallel for schedule(static) firstprivate(f) if (rows > 1 && rows * cols >= kParallelFrom)
  for (int64_t r = 0; r < rows; ++r) f(r);
}

// Calls f(block, begin, end) for `blocks` nearly equal parts of [0, n); none is empty if blocks <= n.
template <class F>
void for_blocks(int64_t blocks, int64_t n, int64_t work, F f) {
#pragma omp parallel for schedule(static) firstprivate(f) if (work >= kParallelFrom)
  for (int64_t b = 0; b < blocks; ++b) f(b, n * b / blocks, n * (b + 1) / blocks);
}

// out[c] += sum over the blocks, in order, of parts[b, c]
template <class A>
void add_blocks(A* out, const A* parts, int64_t blocks, int64_t cols) {
  constexpr int64_t kSlice = 64;
  const int64_t slices = (cols + kSlice - 1) / kSlice;
#pragma omp parallel for schedule(static) if (blocks * cols >= kParallelFrom)
  for (int64_t slice = 0; slice < slices; ++slice) {
    const int64_t begin = slice * kSlice, n = std::min(kSlice, cols - begin);
    A sum[kSlice] = {};
    for (int64_t b = 0; b < blocks; ++b) {
      const A* part = parts + b * cols + begin;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) sum[i] += part[i];
    }
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[begin + i] += sum[i];
  }
}

}  // namespace switchyard::kernels
