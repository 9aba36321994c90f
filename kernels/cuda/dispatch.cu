// The row movements of dispatch.h.
#include "kernels/dispatch.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

template <int V, class T>
__global__ void gather_kernel(GatherRows<T> a) {
  const int64_t i = map_index() * V;
  if (i >= a.rows * a.cols) return;
  const int32_t index = a.index[i / a.cols];
  Acc<T> v[V] = {};
  if (index >= 0) load<V>(a.x + index / a.divisor * a.cols + i % a.cols, v);
  store<V>(a.y + i, v);
}

template <int V, class T>
__global__ void combine_kernel(CombineForward<T> a) {
  using A = Acc<T>;
  const int64_t i = map_index() * V;
  if (i >= a.tokens * a.cols) return;
  const int64_t token = i / a.cols, c = i % a.cols;
  A sum[V] = {};
#pragma unroll 4
  for (int64_t pair = token * a.top_k; pair < (token + 1) * a.top_k; ++pair) {
    const int32_t row = a.position[pair];
    if (row < 0) continue;
    const A weight = a.weight ? a.weight[pair] : A{1};
    A x[V];
    load<V>(a.x + row * a.cols + c, x);
#pragma unroll
    for (int j = 0; j < V; ++j) sum[j] += weight * x[j];
  }
  store<V>(a.y + i, sum);
}

template <int V, class T>
__device__ void combine_backward_row(const CombineBackward<T>& a, int64_t row) {
  using A = Acc<T>;
  const int32_t pair = a.source[row];
  const A weight = pair < 0 ? A{0} : a.weight ? a.weight[pair] : A{1};
  const T* dy = a.dy + (pair < 0 ? 0 : pair / a.top_k) * a.cols;
  A dot = 0;
#pragma unroll 2
  for (int64_t c = int64_t{threadIdx.x} * V; c < a.cols; c += int64_t{blockDim.x} * V) {
    A g[V] = {}, x[V] = {};
    if (pair >= 0) load<V>(dy + c, g);
    if (pair >= 0 && a.dweight) load<V>(a.x + row * a.cols + c, x);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      dot += g[j] * x[j];
      g[j] *= weight;
    }
    store<V>(a.dx + row * a.cols + c, g);
  }
  if (!a.dweight) return;
  dot = team_reduce(dot);
  if (pair >= 0 && threadIdx.x == 0) a.dweight[pair] = dot;
}

// A team a row of dx; the same team sees to pair number `row`, in case it was dropped and has no row.
template <int V, class T>
__global__ void combine_backward_kernel(CombineBackward<T> a) {
  const int64_t row = team_row();
  if (a.dweight && threadIdx.x == 0 && row < a.tokens * a.top_k && a.position[row] < 0) a.dweight[row] = 0;
  if (row < a.rows) combine_backward_row<V>(a, row);
}

}  // namespace

template <class T>
void run(Cuda on, const GatherRows<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.y, a.x), [&](auto v) {
    launch_kernel(gather_kernel<v, T>, map_grid(a.rows * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

template <class T>
void run(Cuda on, const CombineForward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.y, a.x), [&](auto v) {
    launch_kernel(combine_kernel<v, T>, map_grid(a.tokens * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

template <class T>
void run(Cuda on, const CombineBackward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.dx, a.dy, a.x), [&](auto v) {
    const dim3 block = team_block(a.cols / v, 2);
    const int64_t pairs = a.tokens * a.top_k;
    launch_kernel(combine_backward_kernel<v, T>, team_grid(a.rows > pairs ? a.rows : pairs, block), block, 0,
                  on.stream, a);
  });
}

#define SWITCHYARD_INSTANTIATE(T)                    \
  template void run(Cuda, const GatherRows<T>&);     \
  template void run(Cuda, const CombineForward<T>&); \
  template void run(Cuda, const CombineBackward<T>&);

SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
