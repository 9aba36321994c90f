// The two products that attention's tensor-core kernels are made of. A warp owns kFrags * 16 rows; a row's
// values never leave the four lanes that hold it, so softmax needs two shuffles, and the result of the first
// product is the left operand of the second without a trip through shared memory.
#pragma once

#include "kernels/attention.h"
#include "kernels/cuda/mma_tile.cuh"

namespace switchyard::kernels::flash {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kColumns = 64;  // of the other side per step
constexpr float kLog2E = 1.4426950408889634f;

template <int kFrags, int kWidth>
using Rows = float[kFrags][kWidth / 8][4];

template <int kDim>
using Tile = SharedTile<kDim / 8>;

// s += A B^T: rows m .. of tile a against all kColumns rows of tile b, both [.., kDim].
template <int kFrags, int kDim>
__device__ void multiply_rows(Rows<kFrags, kColumns>& s, Tile<kDim> a_tile, int m, Tile<kDim> b_tile) {
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[kFrags][4];
#pragma unroll
    for (int f = 0; f < kFrags; ++f) load_a<true>(a[f], a_tile, m + 16 * f, step);
#pragma unroll
    for (int j = 0; j < kColumns / 16; ++j) {
      uint32_t b[4];
      load_b<true>(b, b_tile, 16 * j, step);
#pragma unroll
      for (int f = 0; f < kFrags; ++f) {
        multiply_add(s[f][2 * j], a[f], b[0], b[1]);
        multiply_add(s[f][2 * j + 1], a[f], b[2], b[3]);
      }
    }
  }
}

// o += P B: P rounded to bf16, tile b [kColumns, kDim].
template <int kFrags, int kDim>
__device__ void multiply_weights(Rows<kFrags, kDim>& o, const Rows<kFrags, kColumns>& p, Tile<kDim> b_tile) {
#pragma unroll
  for (int step = 0; step < kColumns / 16; ++step) {
    uint32_t a[kFrags][4];
#pragma unroll
    for (int f = 0; f < kFrags; ++f) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&block)[4] = p[f][2 * step + i / 2];
        a[f][i] = pack(block[i % 2 * 2], block[i % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int j = 0; j < kDim / 16; ++j) {
      uint32_t b[4];
      load_b<false>(b, b_tile, 16 * j, step);
#pragma unroll
      for (int f = 0; f < kFrags; ++f) {
        multiply_add(o[f][2 * j], a[f], b[0], b[1]);
        multiply_add(o[f][2 * j + 1], a[f], b[2], b[3]);
      }
    }
  }
}

// Over the four lanes that share a row.
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Writes this warp's rows m .. as x[.., kDim], times `factor`; rows at and past `rows` do not exist.
template <int kFrags, int kDim>
__device__ void store_rows(BF16* x, int64_t ld, const Rows<kFrags, kDim>& r, int m, int rows, float factor) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int f = 0; f < kFrags; ++f) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = m + 16 * f + 8 * half + lane / 4;
      if (row >= rows) continue;
      BF16* out = x + row * ld + lane % 4 * 2;
#pragma unroll
      for (int j = 0; j < kDim / 8; ++j) {
        *reinterpret_cast<uint32_t*>(out + 8 * j) =
            pack(r[f][j][2 * half] * factor, r[f][j][2 * half + 1] * factor);
      }
    }
  }
}

// Where one head's rows of a sequence lie.
struct Strand {
  const BF16* x;
  int64_t ld;
};

// Starts the copy of kRows rows from `first` on, of the `seq` that exist.
template <int kRows, int kDim>
__device__ void copy_rows(Tile<kDim> tile, Strand s, int first, int seq) {
  copy_tile<kRows, kDim / 8, kThreads>(tile, s.x + first * s.ld, s.ld, seq - first, kDim / 8);
}

__host__ __device__ constexpr size_t tile_bytes(int rows, int dim) { return rows * dim * sizeof(BF16); }

template <int kRows, int kDim>
__device__ Tile<kDim> tile_at(unsigned char*& shared) {
  const Tile<kDim> tile{reinterpret_cast<BF16*>(shared)};
  shared += tile_bytes(kRows, kDim);
  return tile;
}

// The two stages of a ring of tiles.
template <int kDim>
struct Stages {
  BF16* data;
  __device__ Tile<kDim> operator[](int step) const { return {data + step % 2 * kColumns * kDim}; }
};

template <int kDim>
__device__ Stages<kDim> stages_at(unsigned char*& shared) {
  return {tile_at<2 * kColumns, kDim>(shared).data};
}

// May a query see a key? Positions within the sequence; `document` is the sequence's part or null.
__device__ inline bool visible(int query, int key, int seq, const int32_t* document) {
  if (key > query) return false;
  return !document || query >= seq || document[query] == document[key];
}

}  // namespace switchyard::kernels::flash
