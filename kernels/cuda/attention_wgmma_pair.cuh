// What the two kernels of attention's backward pass on Hopper share: tiles, their copies, and the two kinds
// of product, 64 rows per warpgroup against steps of 64 rows of the other side.
#pragma once

#include "kernels/cuda/attention_wgmma_forward.cuh"

namespace switchyard::kernels::hopper {

constexpr int kStep = 64, kPairConsumers = 2;
constexpr int kPairRows = 64 * kPairConsumers, kPairThreads = 128 * (kPairConsumers + 1);

// What a block holds: a pair of tiles that it owns (K and V, or Q and dO), and a ring of pairs of the other
// side with two numbers for each of their rows.
template <int kDim>
struct PairTiles {
  static constexpr int kStages = kDim == 64 ? 4 : 3;
  static constexpr int kTileBytes = 64 * kDim * sizeof(BF16);
  static constexpr int kStatisticsBytes = 2 * kStep * sizeof(float);
  static constexpr int kTiles = 2 * (kPairConsumers + kStages);
  static constexpr size_t kShared =
      kTiles * kTileBytes + kStages * kStatisticsBytes + (1 + 2 * kStages) * sizeof(uint64_t);

  unsigned char* data;

  __device__ unsigned char* own(int consumer, int which) const {
    return data + (2 * consumer + which) * kTileBytes;
  }
  __device__ unsigned char* other(int step, int which) const {
    return own(kPairConsumers + step % kStages, which);
  }
  // Of the step's queries, two by two.
  __device__ float2* lse(int step) const {
    return reinterpret_cast<float2*>(data + kTiles * kTileBytes) + step % kStages * kStep;
  }
  __device__ float2* delta(int step) const { return lse(step) + kStep / 2; }
  __device__ uint64_t* own_full() const {
    return reinterpret_cast<uint64_t*>(data + kTiles * kTileBytes + kStages * kStatisticsBytes);
  }
  __device__ uint64_t* full(int step) const { return own_full() + 1 + step % kStages; }
  __device__ uint64_t* empty(int step) const { return full(step) + kStages; }
  __device__ static int parity(int step) { return step / kStages % 2; }

  // `writers` lanes write statistics beside the copy engine.
  __device__ void init(int writers) const {
    init_barrier(own_full(), 1);
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(full(stage), 1 + writers);
      init_barrier(empty(stage), kPairConsumers);
    }
    fence_barriers();
  }
};

// Where the two tiles of a side lie: columns of two tensors [batch, seq, columns].
struct Side {
  const CUtensorMap *first, *second;
  int first_column, second_column;
};

template <int kDim>
__device__ void copy_pair(unsigned char* tiles, const Side& side, uint64_t* full, int row, int batch) {
  copy_head<kDim>(tiles, side.first, full, side.first_column, 64, row, batch);
  copy_head<kDim>(tiles + PairTiles<kDim>::kTileBytes, side.second, full, side.second_column, 64, row, batch);
}

template <int kDim>
__device__ void copy_own(const PairTiles<kDim>& tiles, const Side& side, int row0, int batch) {
  arrive_expecting(tiles.own_full(), 2 * kPairConsumers * PairTiles<kDim>::kTileBytes);
  for (int c = 0; c < kPairConsumers; ++c)
    copy_pair<kDim>(tiles.own(c, 0), side, tiles.own_full(), row0 + 64 * c, batch);
}

template <int kDim>
__device__ void copy_step(const PairTiles<kDim>& tiles, const Side& side, int step, int row, int batch) {
  arrive_expecting(tiles.full(step), 2 * PairTiles<kDim>::kTileBytes);
  copy_pair<kDim>(tiles.other(step, 0), side, tiles.full(step), row, batch);
}

using StepScores = float[kStep / 8][4];
using StepWeights = uint32_t[kStep / 16][4];

// 64 rows of a tile that a warpgroup multiplies with every step. A narrow head's stay in registers, so that a
// product reads one operand from shared memory, not two: its bandwidth is what bounds products of 64 columns.
template <int kDim>
struct OwnTile {
  static constexpr bool kInRegisters = kDim == 64;
  uint32_t rows[kInRegisters ? kDim / 16 : 1][4];
  const unsigned char* tile;

  __device__ explicit OwnTile(const unsigned char* tile) : tile(tile) {
    if constexpr (kInRegisters) {
      const int lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane % 16;
#pragma unroll
      for (int step = 0; step < kDim / 16; ++step) {  // chunks of 16 bytes, swizzled
        const int chunk = (2 * step + lane / 16) ^ (row & 7);
        load_matrices<false>(rows[step], tile + row * kColumnBytes + chunk * 16);
      }
    }
  }

  // s = rows B^T, B 64 x kDim.
  __device__ void start_product(StepScores& s, const unsigned char* b) const {
    fence_accumulators();
    if constexpr (kInRegisters) {
      multiply_kept<false>(s, rows[0], describe(b, 0));
#pragma unroll
      for (int step = 1; step < kDim / 16; ++step)
        multiply_kept<true>(s, rows[step], describe(b + step * 32, 0));
    } else {
      multiply_rows<false>(s, describe(tile, 0), describe(b, 0));
#pragma unroll
      for (int step = 1; step < kDim / 16; ++step) {
        const int at = step / 4 * 64 * kColumnBytes + step % 4 * 32;
        multiply_rows<true>(s, describe(tile + at, 0), describe(b + at, 0));
      }
    }
    commit();
  }
};

// What a query does not see weighs nothing. kQueryRows: rows are queries and columns
// keys, or the other way round.
template <bool kQueryRows>
__device__ void mask_step(StepScores& s, int row0, int column0, int seq, const int32_t* document) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kStep / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + i / 2 * 8 + lane / 4, column = column0 + 8 * j + lane % 4 * 2 + i % 2;
      const int query = kQueryRows ? row : column, key = kQueryRows ? column : row;
      if (key >= seq || !flash::visible(query, key, seq, document)) s[j][i] = -INFINITY;
    }
  }
}

// c += weights B, B 64 x kDim.
template <int kDim>
__device__ void start_sum(float (&c)[kDim / 8][4], const StepWeights& weights, const unsigned char* b) {
  fence_accumulators();
#pragma unroll
  for (int step = 0; step < kStep / 16; ++step)
    multiply_columns(c, weights[step], describe(b + step * 16 * kColumnBytes, 64 * kColumnBytes));
  commit();
}

__device__ inline void round_step(StepWeights& weights, const StepScores& s) {
#pragma unroll
  for (int step = 0; step < kStep / 16; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&block)[4] = s[2 * step + i / 2];
      weights[step][i] = pack(block[i % 2 * 2], block[i % 2 * 2 + 1]);
    }
  }
}

template <int kDim>
__device__ void store_gradient(BF16* out, int64_t ld, const float (&c)[kDim / 8][4], int row0, int seq,
                               float factor) {
  flash::store_rows<1, kDim>(out, ld, reinterpret_cast<const flash::Rows<1, kDim>&>(c), row0, seq, factor);
}

}  // namespace switchyard::kernels::hopper
