#include "kernels/rms_norm.h"

#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kForwardItems = 4;
constexpr int kBackwardItems = 2;

// x, or x + delta, which is kept as the sum.
template <int V, class T>
__device__ void load_row(const RmsNormForward<T>& a, int64_t at, Acc<T> (&out)[V]) {
  load<V>(a.x + at, out);
  if (!a.delta) return;
  Acc<T> delta[V];
  load<V>(a.delta + at, delta);
#pragma unroll
  for (int j = 0; j < V; ++j) out[j] = rounded<T>(out[j] + delta[j]);
  store<V>(a.sum + at, out);
}

// A team a row. The row stays in registers between its sum of squares and its scaling; what does not fit is
// read twice.
template <int V, class T>
__global__ void forward_kernel(RmsNormForward<T> a) {
  using A = Acc<T>;
  const int64_t row = team_row();
  if (row >= a.rows) return;
  const int64_t at = row * a.cols;
  const int64_t first = int64_t{threadIdx.x} * V, step = int64_t{blockDim.x} * V;

  A kept[kForwardItems][V] = {};
#pragma unroll
  for (int i = 0; i < kForwardItems; ++i)
    if (first + i * step < a.cols) load_row<V>(a, at + first + i * step, kept[i]);
  A squares = 0;
#pragma unroll
  for (int i = 0; i < kForwardItems; ++i)
#pragma unroll
    for (int j = 0; j < V; ++j) squares += kept[i][j] * kept[i][j];
  for (int64_t c = first + kForwardItems * step; c < a.cols; c += step) {
    A more[V];
    load_row<V>(a, at + c, more);
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
    store<V>(a.y + at + c, values);
  };
#pragma unroll
  for (int i = 0; i < kForwardItems; ++i)
    if (first + i * step < a.cols) scale(first + i * step, kept[i]);
  const T* normed = (a.delta ? a.sum : a.x) + at;
  for (int64_t c = first + kForwardItems * step; c < a.cols; c += step) {
    A more[V];
    load<V>(normed + c, more);
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
__device__ void add_dsum(const RmsNormBackward<T>& a, int64_t at, Acc<T> (&dx)[V]) {
  if (!a.dsum) return;
  Acc<T> dsum[V];
  load<V>(a.dsum + at, dsum);
#pragma unroll
  for (int j = 0; j < V; ++j) dx[j] = rounded<T>(dx[j]) + dsum[j];
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
    add_dsum<V>(a, row * a.cols + c, gs);
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

// ---- Both gradients in one pass, for rows that fit into a team's registers.

constexpr int kFusedThreads = 256, kFusedItems = 4;  // two blocks a multiprocessor

// Lanes of a row's team: whole warps that divide a block, with kFusedItems vectors a
// lane; 0: the row is too long.
template <int V>
unsigned fused_lanes(int64_t cols) {
  for (const unsigned lanes : {32u, 64u, 128u, 256u})
    if (cols <= int64_t{lanes} * kFusedItems * V) return lanes;
  return 0;
}

// As team_reduce, but several teams of several warps may share the block. All threads must come here.
template <class A>
__device__ A sum_of_team(A value) {
  value = warp_reduce(value);
  if (blockDim.x == kWarp) return value;
  __shared__ A warps[kFusedThreads / kWarp];
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, team_warps = blockDim.x / kWarp;
  __syncthreads();  // the last sum's readers are done
  if (thread % kWarp == 0) warps[thread / kWarp] = value;
  __syncthreads();
  A total = 0;
  for (unsigned i = 0; i < team_warps; ++i) total += warps[threadIdx.y * team_warps + i];
  return total;
}

// dx of one row; its share of dw is added to dw. Teams without a row come along.
template <int V, class T>
__device__ void fused_row(const RmsNormBackward<T>& a, int64_t row, bool valid,
                          Acc<T> (&dw)[kFusedItems][V]) {
  using A = Acc<T>;
  Pack<T, V> dy[kFusedItems], x[kFusedItems], dsum[kFusedItems];
  const int64_t first = int64_t{threadIdx.x} * V, step = int64_t{blockDim.x} * V, at = row * a.cols;
  const auto inside = [&](int i) { return valid && first + i * step < a.cols; };
  const auto take = [&](const T* rows, int i, Pack<T, V>& out) {
    const auto* from = reinterpret_cast<const typename Pack<T, V>::Word*>(rows + at + first + i * step);
    const bool there = rows && inside(i);
#pragma unroll
    for (int word = 0; word < Pack<T, V>::kWords; ++word)
      out.word[word] = there ? from[word] : typename Pack<T, V>::Word{};
  };
#pragma unroll
  for (int i = 0; i < kFusedItems; ++i) {
    take(a.dy, i, dy[i]);
    take(a.x, i, x[i]);
    take(a.dsum, i, dsum[i]);
  }
  const A rstd = valid ? a.rstd[row] : A{0};
  A dot = 0;
#pragma unroll
  for (int i = 0; i < kFusedItems; ++i) {
    if (!inside(i)) continue;
    A w[V];
    load<V>(a.w + first + i * step, w);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const A product = widen(dy[i].element[j]) * widen(x[i].element[j]);
      dot += product * w[j];
      dw[i][j] += product * rstd;
    }
  }
  const A pull = sum_of_team(dot) / static_cast<A>(a.cols) * rstd * rstd;
#pragma unroll
  for (int i = 0; i < kFusedItems; ++i) {
    if (!inside(i)) continue;
    const int64_t c = first + i * step;
    A g[V];
    load<V>(a.w + c, g);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      g[j] = rstd * (widen(dy[i].element[j]) * g[j] - widen(x[i].element[j]) * pull);
      if (a.dsum) g[j] = rounded<T>(g[j]) + widen(dsum[i].element[j]);
    }
    store<V>(a.dx + at + c, g);
  }
}

// A block walks its share of the rows; the teams' sums are added in their order.
template <int V, class T>
__global__ void __launch_bounds__(kFusedThreads, 2) fused_backward_kernel(RmsNormBackward<T> a) {
  using A = Acc<T>;
  A dw[kFusedItems][V] = {};
  const int64_t per_block = ceil_div<int64_t>(a.rows, gridDim.x), begin = blockIdx.x * per_block,
                end = begin + per_block < a.rows ? begin + per_block : a.rows;
  for (int64_t row = begin; row < end; row += blockDim.y)
    fused_row<V>(a, row + threadIdx.y, row + threadIdx.y < end, dw);
  A* sums = reinterpret_cast<A*>(dynamic_shared());  // [cols]
  for (unsigned team = 0; team < blockDim.y; ++team) {
    if (threadIdx.y == team) {
#pragma unroll
      for (int i = 0; i < kFusedItems; ++i) {
        const int64_t c = (int64_t{threadIdx.x} + i * int64_t{blockDim.x}) * V;
        if (c >= a.cols) continue;
#pragma unroll
        for (int j = 0; j < V; ++j) sums[c + j] = (team == 0 ? A{0} : sums[c + j]) + dw[i][j];
      }
    }
    __syncthreads();
  }
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (int64_t c = thread; c < a.cols; c += kFusedThreads) a.workspace[blockIdx.x * a.cols + c] = sums[c];
}

template <int V, class T>
void launch_fused_backward(Cuda on, const RmsNormBackward<T>& a, unsigned lanes) {
  const int64_t blocks = a.rows < a.kBlocks ? a.rows : a.kBlocks;
  launch_kernel(fused_backward_kernel<V, T>, grid_of(blocks), dim3(lanes, kFusedThreads / lanes),
                a.cols * sizeof(Acc<T>), on.stream, a);
  launch_add_partials(on, a.dw, a.workspace, a.cols, a.cols, static_cast<int>(blocks));
}

}  // namespace

template <class T>
void run(Cuda on, const RmsNormForward<T>& a) {
  with_width<kVector<T>>(vectorizable<kVector<T>>(a.cols, a.y, a.x, a.w, a.delta, a.sum), [&](auto v) {
    const dim3 block = team_block(a.cols / v, kForwardItems);
    launch_kernel(forward_kernel<v, T>, team_grid(a.rows, block), block, 0, on.stream, a);
  });
}

template <class T>
void run(Cuda on, const RmsNormBackward<T>& a) {
  if (a.rows == 0 || a.cols == 0) return;
  constexpr int V = kVector<T>;
  const bool wide = vectorizable<V>(a.cols, a.dx, a.dy, a.x, a.w, a.dsum);
  if (const unsigned lanes = fused_lanes<V>(a.cols); wide && lanes > 0)
    return launch_fused_backward<V>(on, a, lanes);
  with_width<V>(wide, [&](auto v) {
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
