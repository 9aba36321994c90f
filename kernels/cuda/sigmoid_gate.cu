// SigmoidGateForward and SigmoidGateBackward of elementwise.h.
#include "kernels/cuda/common.cuh"
#include "kernels/elementwise.h"

namespace switchyard::kernels {
namespace {

template <class A>
__device__ A sigmoid(A x) {
  return A{1} / (A{1} + std::exp(-x));
}

template <int V, class T>
__global__ void forward_kernel(SigmoidGateForward<T> a) {
  const int64_t i = map_index() * V;
  if (i >= a.rows * a.cols) return;
  Acc<T> x[V];
  load<V>(a.x + i, x);
  const Acc<T> gate = sigmoid(widen(a.g[i / a.cols]));
#pragma unroll
  for (int j = 0; j < V; ++j) x[j] *= gate;
  store<V>(a.y + i, x);
}

// A team a row.
template <int V, class T>
__global__ void backward_kernel(SigmoidGateBackward<T> a) {
  using A = Acc<T>;
  const int64_t row = team_row();
  if (row >= a.rows) return;
  const A gate = sigmoid(widen(a.g[row]));
  A dot = 0;
#pragma unroll 2
  for (int64_t c = int64_t{threadIdx.x} * V; c < a.cols; c += int64_t{blockDim.x} * V) {
    A dy[V], x[V];
    load<V>(a.dy + row * a.cols + c, dy);
    load<V>(a.x + row * a.cols + c, x);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      dot += dy[j] * x[j];
      dy[j] *= gate;
    }
    store<V>(a.dx + row * a.cols + c, dy);
  }
  dot = team_reduce(dot);
  if (threadIdx.x == 0) a.dg[row] = narrow<T>(gate * (A{1} - gate) * dot);
}

}  // namespace

template <class T>
void run(Cuda on, const SigmoidGateForward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.y, a.x), [&](auto v) {
    launch_kernel(forward_kernel<v, T>, map_grid(a.rows * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

template <class T>
void run(Cuda on, const SigmoidGateBackward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.dx, a.dy, a.x), [&](auto v) {
    const dim3 block = team_block(a.cols / v, 2);
    launch_kernel(backward_kernel<v, T>, team_grid(a.rows, block), block, 0, on.stream, a);
  });
}

#define SWITCHYARD_INSTANTIATE(T)                        \
  template void run(Cuda, const SigmoidGateForward<T>&); \
  template void run(Cuda, const SigmoidGateBackward<T>&);

SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
