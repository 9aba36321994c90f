// Sums over rows, column by column, in fixed blocks of rows:
//   partial[b, c] = sum over rows r of block b of value(r, c),   out[c] += sum over b of partial[b, c]
#pragma once

#include <algorithm>

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {

// Of a block: blockDim.x across columns, blockDim.y rows side by side.
inline constexpr int kSumThreads = 256;

// `value.template operator()<V>(r, c, out)` writes the values at columns c .. c + V - 1 of row r.
template <int V, class A, class Value>
__global__ void column_partials(A* partial, int64_t stride, int64_t rows, int64_t cols, Value value) {
  const int64_t c = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * V;
  const int64_t per_block = ceil_div<int64_t>(rows, gridDim.y);
  const int64_t begin = blockIdx.y * per_block;
  const int64_t end = begin + per_block < rows ? begin + per_block : rows;
  A sum[V] = {};
  if (c < cols) {
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; r < end; r += blockDim.y) {
      A term[V];
      value.template operator()<V>(r, c, term);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] += term[i];
    }
  }
  __shared__ A sums[kSumThreads * V];  // [blockDim.y, V, blockDim.x]
#pragma unroll
  for (int i = 0; i < V; ++i) sums[(threadIdx.y * V + i) * blockDim.x + threadIdx.x] = sum[i];
  __syncthreads();
  if (threadIdx.y != 0 || c >= cols) return;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    A total = 0;
    for (unsigned y = 0; y < blockDim.y; ++y) total += sums[(y * V + i) * blockDim.x + threadIdx.x];
    partial[blockIdx.y * stride + c + i] = total;
  }
}

// out[c] += sum over b of partial[b, c]: kWarp columns a block, whose rows of threads take every
// blockDim.y-th b.
template <class A>
__global__ void add_partials(A* out, const A* partial, int64_t stride, int64_t cols, int blocks) {
  const int64_t c = int64_t{blockIdx.x} * kWarp + threadIdx.x;
  A total = 0;
  if (c < cols) {
#pragma unroll 8
    for (int b = threadIdx.y; b < blocks; b += blockDim.y) total += partial[b * stride + c];
  }
  __shared__ A sums[kWarp][kWarp];
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || c >= cols) return;
  total = 0;
  for (unsigned y = 0; y < blockDim.y; ++y) total += sums[y][threadIdx.x];
  out[c] += total;
}

template <class A>
void launch_add_partials(Cuda on, A* out, const A* partial, int64_t stride, int64_t cols, int blocks) {
  launch_kernel(add_partials<A>, grid_of(ceil_div<int64_t>(cols, kWarp)), dim3(kWarp, 16), 0, on.stream, out,
                partial, stride, cols, blocks);
}

// `partial` holds `blocks` rows of `stride` elements. Few rows are summed by fewer blocks.
template <int V, class A, class Value>
void launch_column_sum(Cuda on, A* out, A* partial, int64_t stride, int64_t rows, int64_t cols, int blocks,
                       Value value) {
  if (rows == 0 || cols == 0) return;
  unsigned lanes = 1;  // narrow rows (a head's components) share a warp
  while (lanes < kWarp && int64_t{lanes} * V < cols) lanes *= 2;
  const dim3 block(lanes, kSumThreads / lanes);
  const int64_t used = std::min<int64_t>(blocks, ceil_div<int64_t>(rows, block.y));
  dim3 grid = grid_of(ceil_div<int64_t>(cols, lanes * V));
  grid.y = static_cast<unsigned>(used);
  launch_kernel(column_partials<V, A, Value>, grid, block, 0, on.stream, partial, stride, rows, cols, value);
  launch_add_partials(on, out, partial, stride, cols, static_cast<int>(used));
}

}  // namespace switchyard::kernels
