#include "kernels/swiglu.h"

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/swiglu.cuh"

namespace switchyard::kernels {
namespace {

template <int V, class T>
__global__ void forward_kernel(SwigluForward<T> a) {
  using A = Acc<T>;
  const int64_t i = map_index() * V;
  if (i >= a.rows * a.cols) return;
  const T* gate = a.x + i + i / a.cols * a.cols;  // row r of x starts at 2 r cols
  A g[V], u[V];
  load<V>(gate, g);
  load<V>(gate + a.cols, u);
#pragma unroll
  for (int j = 0; j < V; ++j) g[j] = swiglu_of<T>(g[j], u[j]);
  store<V>(a.y + i, g);
}

// s = sigmoid(g):   dg = dy u s (1 + g (1 - s)),   du = dy g s
template <int V, class T>
__global__ void backward_kernel(SwigluBackward<T> a) {
  using A = Acc<T>;
  const int64_t i = map_index() * V;
  if (i >= a.rows * a.cols) return;
  const int64_t at = i + i / a.cols * a.cols;
  A g[V], u[V], dy[V];
  load<V>(a.x + at, g);
  load<V>(a.x + at + a.cols, u);
  load<V>(a.dy + i, dy);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const A s = sigmoid_for<T>(g[j]), dg = dy[j] * u[j] * s * (A{1} + g[j] * (A{1} - s));
    u[j] = dy[j] * g[j] * s;
    g[j] = dg;
  }
  store<V>(a.dx + at, g);
  store<V>(a.dx + at + a.cols, u);
}

}  // namespace

template <class T>
void run(Cuda on, const SwigluForward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.y, a.x), [&](auto v) {
    launch_kernel(forward_kernel<v, T>, map_grid(a.rows * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

template <class T>
void run(Cuda on, const SwigluBackward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.dx, a.dy, a.x), [&](auto v) {
    launch_kernel(backward_kernel<v, T>, map_grid(a.rows * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

template void run(Cuda, const SwigluForward<float>&);
template void run(Cuda, const SwigluForward<BF16>&);
template void run(Cuda, const SwigluForward<double>&);
template void run(Cuda, const SwigluBackward<float>&);
template void run(Cuda, const SwigluBackward<BF16>&);
template void run(Cuda, const SwigluBackward<double>&);

}  // namespace switchyard::kernels
