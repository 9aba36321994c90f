// Sums over rows, column by column, in fixed blocks of rows:
//   partial[b, c] = sum over rows r of block b of value(r, c),   out[c] += sum over b of partial[b, c]
#pragma once

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {

inline constexpr int kSumRows = 8;  // warps of a block, each on its own rows

// `value.template operator()<V>(r, c, out)` writes the values at columns c .. c + V - 1 of row r.
template <int V, class A, class Value>
__global__ void column_partials(A* partial, int64_t stride, int64_t rows, int64_t cols, Value value) {
  const int64_t c = (int64_t{blockIdx.x} * kWarp + threadIdx.x) * V;
  const int64_t per_block = ceil_div<int64_t>(rows, gridDim.y);
  const int64_t begin = blockIdx.y * per_block;
  const int64_t end = begin + per_block < rows ? begin + per_block : rows;
  A sum[V] = {};
  if (c < cols) {
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; r < end; r += kSumRows) {
      A term[V];
      value.template operator()<V>(r, c, term);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] += term[i];
    }
  }
  __shared__ A sums[kSumRows][V][kWarp];
#pragma unroll
  for (int i = 0; i < V; ++i) sums[threadIdx.y][i][threadIdx.x] = sum[i];
  __syncthreads();
  if (threadIdx.y != 0 || c >= cols) return;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    A total = 0;
    for (int y = 0; y < kSumRows; ++y) total += sums[y][i][threadIdx.x];
    partial[blockIdx.y * stride + c + i] = total;
  }
}

template <class A>
__global__ void add_partials(A* out, const A* partial, int64_t stride, int64_t cols, int blocks) {
  const int64_t c = map_index();
  if (c >= cols) return;
  A total = 0;
#pragma unroll 16
  for (int b = 0; b < blocks; ++b) total += partial[b * stride + c];
  out[c] += total;
}

// `partial` holds `blocks` rows of `stride` elements.
template <int V, class A, class Value>
void launch_column_sum(Cuda on, A* out, A* partial, int64_t stride, int64_t rows, int64_t cols, int blocks,
                       Value value) {
  if (rows == 0 || cols == 0) return;
  dim3 grid = grid_of(ceil_div<int64_t>(cols, kWarp * V));
  grid.y = static_cast<unsigned>(blocks);
  launch_kernel(column_partials<V, A, Value>, grid, dim3(kWarp, kSumRows), 0, on.stream, partial, stride,
                rows, cols, value);
  launch_kernel(add_partials<A>, map_grid(cols), kMapThreads, 0, on.stream, out, partial, stride, cols,
                blocks);
}

}  // namespace switchyard::kernels
