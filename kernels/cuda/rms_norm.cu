#include "kernels/rms_norm.h"

#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kForwardItems = 4;
constexpr int kBackwardItems = 2;

// A team a row. The row stays in registers between its sum of squares and its scaling; what does not fit is
// read twice.
template <int V, class T>
__global__ void forward_kernel(RmsNormForward<T> a) {
  using A = Acc<T>;
  const int64_t row = team_row();
  if (row >= a.rows) return;
  const T* x = a.x + row * a.cols;
  T* y = a.y + row * a.cols;
  const int64_t first = int64_t{threadIdx.x} * V, step = int64_t{blockDim.x} * V;

  A kept[kForwardItems][V] = {};
#pragma unroll
  for (int i = 0; i < kForwardItems; ++i)
    if (first + i * step < a.cols) load<V>(x + first + i * step, kept[i]);
  A squares = 0;
#pragma unroll
  for (int i = 0; i < kForwardItems; ++i)
#pragma unroll
    for (int j = 0; j < V; ++j) squares += kept[i][j] * kept[i][j];
  for (int64_t c = first + kForwardItems * step; c < a.cols; c += step) {
    A more[V];
    load<V>(x + c, more);
#pragma unroll
    for (int j = 0; j < V; ++j) squares += more[j] * more[j];
  }
  const A rstd = A{1} / std::sqrt(team_reduce(squares) / static_cast<A>(a.cols) + a.eps);
  if (threadIdx.x == 0) a.rstd[row] = rstd;

  auto scale = [&](int64_t c, A(&values)[V]) {
    A w[V];
    load<V>(a.w + c, w);
#pragma unroll
    for (int j = 0; j < V; ++j) values[j] = rounded<T>(values[j] * rstd) * w[j];
    store<V>(y + c, values);
  };
#pragma unroll
  for (int i = 0; i < kForwardItems; ++i)
    if (first + i * step < a.cols) scale(first + i * step, kept[i]);
  for (int64_t c = first + kForwardItems * step; c < a.cols; c += step) {
    A more[V];
    load<V>(x + c, more);
    scale(c, more);
  }
}

// g = dy * w and x at columns c ..
template <int V, class T>
__device__ void load_gradient(const RmsNormBackward<T>& a, int64_t row, int64_t c, Acc<T> (&g)[V],
                              Acc<T> (&x)[V]) {
  Acc<T> w[V];
  load<V>(a.dy + row * a.cols + c, g);
  load<V>(a.x + row * a.cols + c, x);
  load<V>(a.w + c, w);
#pragma unroll
  for (int j = 0; j < V; ++j) g[j] *= w[j];
}

template <int V, class T>
__global__ void backward_kernel(RmsNormBackward<T> a) {
  using A = Acc<T>;
  const int64_t row = team_row();
  if (row >= a.rows) return;
  T* dx = a.dx + row * a.cols;
  const int64_t first = int64_t{threadIdx.x} * V, step = int64_t{blockDim.x} * V;

  A g[kBackwardItems][V] = {}, x[kBackwardItems][V] = {};
#pragma unroll
  for (int i = 0; i < kBackwardItems; ++i)
    if (first + i * step < a.cols) load_gradient<V>(a, row, first + i * step, g[i], x[i]);
  A dot = 0;
#pragma unroll
  for (int i = 0; i < kBackwardItems; ++i)
#pragma unroll
    for (int j = 0; j < V; ++j) dot += g[i][j] * x[i][j];
  for (int64_t c = first + kBackwardItems * step; c < a.cols; c += step) {
    load_gradient<V>(a, row, c, g[0], x[0]);
#pragma unroll
    for (int j = 0; j < V; ++j) dot += g[0][j] * x[0][j];
  }
  const A rstd = a.rstd[row];
  const A pull = team_reduce(dot) / static_cast<A>(a.cols) * rstd * rstd;

  auto finish = [&](int64_t c, A(&gs)[V], const A(&xs)[V]) {
#pragma unroll
    for (int j = 0; j < V; ++j) gs[j] = rstd * (gs[j] - xs[j] * pull);
    store<V>(dx + c, gs);
  };
  const bool all_kept = kBackwardItems * step >= a.cols;
#pragma unroll
  for (int i = 0; i < kBackwardItems; ++i) {
    const int64_t c = first + i * step;
    if (c >= a.cols) continue;
    if (!all_kept && i == 0) load_gradient<V>(a, row, c, g[0], x[0]);  // its registers were used for the rest
    finish(c, g[i], x[i]);
  }
  for (int64_t c = first + kBackwardItems * step; c < a.cols; c += step) {
    load_gradient<V>(a, row, c, g[0], x[0]);
    finish(c, g[0], x[0]);
  }
}

// dy * x * rstd
template <class T>
struct WeightGradient {
  RmsNormBackward<T> a;
  template <int V>
  __device__ void operator()(int64_t r, int64_t c, Acc<T> (&out)[V]) const {
    Acc<T> x[V];
    load<V>(a.dy + r * a.cols + c, out);
    load<V>(a.x + r * a.cols + c, x);
    const Acc<T> rstd = a.rstd[r];
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] *= x[j] * rstd;
  }
};

}  // namespace

template <class T>
void run(Cuda on, const RmsNormForward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.y, a.x, a.w), [&](auto v) {
    const dim3 block = team_block(a.cols / v, kForwardItems);
    launch_kernel(forward_kernel<v, T>, team_grid(a.rows, block), block, 0, on.stream, a);
  });
}

template <class T>
void run(Cuda on, const RmsNormBackward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.dx, a.dy, a.x, a.w), [&](auto v) {
    launch_column_sum<v>(on, a.dw, a.workspace, a.cols, a.rows, a.cols, RmsNormBackward<T>::kBlocks,
                         WeightGradient<T>{a});
    const dim3 block = team_block(a.cols / v, kBackwardItems);
    launch_kernel(backward_kernel<v, T>, team_grid(a.rows, block), block, 0, on.stream, a);
  });
}

template void run(Cuda, const RmsNormForward<float>&);
template void run(Cuda, const RmsNormForward<BF16>&);
template void run(Cuda, const RmsNormForward<double>&);
template void run(Cuda, const RmsNormBackward<float>&);
template void run(Cuda, const RmsNormBackward<BF16>&);
template void run(Cuda, const RmsNormBackward<double>&);

}  // namespace switchyard::kernels
