// Grouped products of bf16 with mma.sync (sm_80 and later): 128 x 128 of C per block, the reduction in steps
// of 64 through a ring of three stages in shared memory that cp.async fills ahead. n and k are multiples
// of 8.
#pragma once

#include <algorithm>

#include "kernels/cuda/group_tiles.cuh"
#include "kernels/cuda/mma_tile.cuh"

namespace switchyard::kernels::mma {

constexpr int kTile = 128, kDepth = 64, kStages = 3, kThreads = 256;
constexpr int kWarpM = 64, kWarpN = 32;   // of C per warp: 2 x 4 warps
constexpr int kOperand = kTile * kDepth;  // elements of one operand's stage
constexpr size_t kShared = 2 * kStages * kOperand * sizeof(BF16);

// One operand of the tile: its stages, and where its next step comes from.
template <bool kDepthContiguous>
struct Operand {
  static constexpr int kChunks = (kDepthContiguous ? kDepth : kTile) / 8;
  BF16* stages;

  __device__ SharedTile<kChunks> stage(int step) const { return {stages + step % kStages * kOperand}; }
  // Steps `depth` into an operand with `extent` rows (or columns) and `left` of the reduction left.
  __device__ void copy(int step, const BF16* x, int64_t ld, int extent, int k) const {
    const int depth = step * kDepth, left = k - depth;
    if constexpr (kDepthContiguous) {
      copy_tile<kTile, kChunks, kThreads>(stage(step), x + depth, ld, extent, left / 8);
    } else {
      copy_tile<kDepth, kChunks, kThreads>(stage(step), x + depth * ld, ld, left, extent / 8);
    }
  }
};

using Accumulators = float[kWarpM / 16][kWarpN / 8][4];

template <class A, class B, bool kA, bool kB>
__device__ void multiply_stage(Accumulators& c, A a_tile, B b_tile, int m, int n) {
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    uint32_t a[kWarpM / 16][4], b[kWarpN / 16][4];
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i) load_a<kA>(a[i], a_tile, m + 16 * i, step);
#pragma unroll
    for (int j = 0; j < kWarpN / 16; ++j) load_b<kB>(b[j], b_tile, n + 16 * j, step);
#pragma unroll
    for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
      for (int j = 0; j < kWarpN / 8; ++j)
        multiply_add(c[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
}

template <class C>
__device__ void store_pair(C* c, float x, float y, bool) {
  *reinterpret_cast<uint32_t*>(c) = pack<C>(x, y);
}
__device__ inline void store_pair(float* c, float x, float y, bool accumulate) {
  float2* pair = reinterpret_cast<float2*>(c);
  const float2 old = accumulate ? *pair : float2{0, 0};
  *pair = float2{old.x + x, old.y + y};
}

template <class C>
__device__ void store_tile(const TileView<BF16, C>& v, const Accumulators& c, int m, int n, bool accumulate) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = m + 16 * i + 8 * half + lane / 4;
      if (row >= v.m) continue;
#pragma unroll
      for (int j = 0; j < kWarpN / 8; ++j) {
        const int column = n + 8 * j + lane % 4 * 2;
        if (column < v.n)
          store_pair(v.c + row * v.ldc + column, c[i][j][2 * half], c[i][j][2 * half + 1], accumulate);
      }
    }
  }
}

template <Form kForm, class C>
__global__ void __launch_bounds__(kThreads, 2) grouped_kernel(GroupedProblem<BF16, C> p) {
  // Contiguous along the reduction?
  constexpr bool kA = kForm != Form::kWeight, kB = kForm == Form::kForward;
  BF16* shared = reinterpret_cast<BF16*>(dynamic_shared());
  int* starts = reinterpret_cast<int*>(dynamic_shared() + kShared);
  const Operand<kA> a{shared};
  const Operand<kB> b{shared + kStages * kOperand};
  count_tiles<kForm>(starts, p, kTile, kTile);
  __syncthreads();
  const int warp = threadIdx.x / 32, m = warp / 4 * kWarpM, n = warp % 4 * kWarpN;
  for (int tile = blockIdx.x; tile < starts[p.groups]; tile += gridDim.x) {
    const auto v = view<kForm>(p, group_tile<kForm>(starts, p, tile, kTile, kTile));
    const int steps = ceil_div(v.k, kDepth);
    const auto copy = [&](int step) {
      if (step < steps) {
        a.copy(step, v.a, v.lda, v.m, v.k);
        b.copy(step, v.b, v.ldb, v.n, v.k);
      }
      commit_copies();  // an empty group as well: the waits count groups
    };
    Accumulators c = {};
    for (int step = 0; step < kStages - 1; ++step) copy(step);
    for (int step = 0; step < steps; ++step) {
      wait_copies<kStages - 2>();
      __syncthreads();  // this step has arrived for all, and all are done with the stage that is filled next
      copy(step + kStages - 1);
      multiply_stage<decltype(a.stage(0)), decltype(b.stage(0)), kA, kB>(c, a.stage(step), b.stage(step), m,
                                                                         n);
    }
    store_tile(v, c, m, n, p.accumulate);
    __syncthreads();
  }
}

template <Form kForm, class C>
void launch(const GroupedProblem<BF16, C>& p, int multiprocessors, cudaStream_t stream) {
  const int64_t blocks = std::min<int64_t>(most_tiles<kForm>(p, kTile, kTile), 2 * multiprocessors);
  launch_kernel(grouped_kernel<kForm, C>, dim3(blocks), dim3(kThreads), kShared + tile_counts_bytes(p.groups),
                stream, p);
}

}  // namespace switchyard::kernels::mma
