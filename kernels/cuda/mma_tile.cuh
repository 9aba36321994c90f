// A tile of bf16 in shared memory, and the operands of multiply_add taken from it.
#pragma once

#include "kernels/cuda/mma.cuh"

namespace switchyard::kernels {

// Rows of kChunks 16-byte chunks. Chunk c of row r stands at c ^ (r % 8), so that the same chunk of eight
// neighbouring rows, which load_matrices reads at once, lies in eight different banks.
template <int kChunks>
struct SharedTile {
  BF16* data;
  __device__ BF16* at(int row, int chunk) const { return data + (row * kChunks + (chunk ^ (row & 7))) * 8; }
};

// Starts the copy of a tile by kThreads threads; rows and chunks that do not exist become zero.
template <int kRows, int kChunks, int kThreads>
__device__ void copy_tile(SharedTile<kChunks> tile, const BF16* x, int64_t ld, int rows, int chunks) {
#pragma unroll
  for (int e = threadIdx.x; e < kRows * kChunks; e += kThreads) {
    const int row = e / kChunks, chunk = e % kChunks;
    const bool valid = row < rows && chunk < chunks;
    copy_async(tile.at(row, chunk), valid ? x + row * ld + chunk * 8 : x, valid);
  }
}

// A[16, 16] at (m, 16 * step of the reduction). kDepthContiguous: a row of the tile
// is a row of A; else a column.
template <bool kDepthContiguous, int kChunks>
__device__ void load_a(uint32_t (&a)[4], SharedTile<kChunks> tile, int m, int step) {
  const int lane = threadIdx.x % 32;
  if constexpr (kDepthContiguous) {
    load_matrices<false>(a, tile.at(m + lane % 16, 2 * step + lane / 16));
  } else {
    load_matrices<true>(a, tile.at(16 * step + lane % 8 + lane / 16 * 8, m / 8 + lane / 8 % 2));
  }
}

// B[16, 16] at (16 * step of the reduction, n): b[0], b[1] for columns n .. n+7, b[2], b[3] for the next
// eight. kDepthContiguous: a row of the tile is a column of B; else a row.
template <bool kDepthContiguous, int kChunks>
__device__ void load_b(uint32_t (&b)[4], SharedTile<kChunks> tile, int n, int step) {
  const int lane = threadIdx.x % 32;
  if constexpr (kDepthContiguous) {
    load_matrices<false>(b, tile.at(n + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
  } else {
    load_matrices<true>(b, tile.at(16 * step + lane % 16, n / 8 + lane / 16));
  }
}

}  // namespace switchyard::kernels
