// Grouped products on the ordinary arithmetic units: float32 and double exactly, and bf16 of any alignment.
// A block computes 64 x 64 of C, a thread 4 x 4, the reduction in steps of 16 through shared memory.
#pragma once

#include <algorithm>

#include "kernels/cuda/group_tiles.cuh"

namespace switchyard::kernels::simt {

constexpr int kTile = 64, kDepth = 16, kThreads = 256, kPerThread = 4;

// out[kk][i] = element (i, k0 + kk) of an operand with `extent` rows left; 0 outside.
template <bool kDepthContiguous, class T>
__device__ void load_operand(Acc<T> (&out)[kDepth][kTile + 4], const T* x, int64_t ld, int extent, int k0,
                             int k) {
  for (int e = threadIdx.x; e < kTile * kDepth; e += kThreads) {
    const int kk = kDepthContiguous ? e % kDepth : e / kTile;
    const int i = kDepthContiguous ? e / kDepth : e % kTile;
    const bool inside = i < extent && k0 + kk < k;
    const int64_t at = kDepthContiguous ? i * ld + k0 + kk : (k0 + kk) * ld + i;
    out[kk][i] = inside ? static_cast<Acc<T>>(x[at]) : Acc<T>(0);
  }
}

template <class T, class C>
__device__ void store_tile(const TileView<T, C>& v, const Acc<T> (&sum)[kPerThread][kPerThread],
                           bool accumulate) {
  const int row = threadIdx.x / 16 * kPerThread, column = threadIdx.x % 16 * kPerThread;
  for (int i = 0; i < kPerThread; ++i) {
    for (int j = 0; j < kPerThread; ++j) {
      if (row + i >= v.m || column + j >= v.n) continue;
      C* c = v.c + (row + i) * v.ldc + column + j;
      *c = C(accumulate ? static_cast<Acc<T>>(*c) + sum[i][j] : sum[i][j]);
    }
  }
}

template <Form kForm, class T, class C>
__global__ void __launch_bounds__(kThreads) grouped_kernel(GroupedProblem<T, C> p) {
  int* starts = reinterpret_cast<int*>(dynamic_shared());
  __shared__ Acc<T> a[kDepth][kTile + 4], b[kDepth][kTile + 4];
  count_tiles<kForm>(starts, p, kTile, kTile);
  __syncthreads();
  const int row = threadIdx.x / 16 * kPerThread, column = threadIdx.x % 16 * kPerThread;
  for (int tile = blockIdx.x; tile < starts[p.groups]; tile += gridDim.x) {
    const auto v = view<kForm>(p, group_tile<kForm>(starts, p, tile, kTile, kTile));
    Acc<T> sum[kPerThread][kPerThread] = {};
    for (int k0 = 0; k0 < v.k; k0 += kDepth) {
      load_operand<kForm != Form::kWeight>(a, v.a, v.lda, v.m, k0, v.k);
      load_operand<kForm == Form::kForward>(b, v.b, v.ldb, v.n, k0, v.k);
      __syncthreads();
#pragma unroll
      for (int kk = 0; kk < kDepth; ++kk) {
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
          for (int j = 0; j < kPerThread; ++j) sum[i][j] += a[kk][row + i] * b[kk][column + j];
        }
      }
      __syncthreads();
    }
    store_tile(v, sum, p.accumulate);
  }
}

template <Form kForm, class T, class C>
void launch(const GroupedProblem<T, C>& p, int multiprocessors, cudaStream_t stream) {
  const int64_t blocks = std::min<int64_t>(most_tiles<kForm>(p, kTile, kTile), 4 * multiprocessors);
  launch_kernel(grouped_kernel<kForm, T, C>, dim3(blocks), dim3(kThreads), tile_counts_bytes(p.groups),
                stream, p);
}

}  // namespace switchyard::kernels::simt
