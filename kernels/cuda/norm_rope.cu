#include "kernels/norm_rope.h"

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/norm_rope_heads.cuh"

namespace switchyard::kernels {
namespace {

using namespace head_walk;

template <int V, int Items, class T>
__global__ void __launch_bounds__(kThreads, Items == 1 ? 7 : 1)
    forward_kernel(NormRopeForward<T> a, int64_t per_block) {
  using A = Acc<T>;
  const Heads<T> heads(a, per_block);
  const Lane<V, Items> lane(a, blockIdx.y == 2);
  Held<T, V, Items> w, x, next;
  if (heads.w) w.fetch(heads.w, lane);
  Spot spot, next_spot;
  const auto fetch = [&](unsigned head) {
    if (head >= heads.size) return;
    next_spot = Spot(a, heads, head);
    next.fetch(a.x + next_spot.head, lane);
  };
  fetch(threadIdx.y);

  // All teams of a warp come to its shuffles, those without a head too.
  for (unsigned begin = 0; begin < heads.size; begin += heads.at_once) {
    const unsigned head = begin + threadIdx.y;
    x = next;
    spot = next_spot;
    fetch(head + heads.at_once);

    A rstd = 1;
    if (heads.w) {
      A squares = 0;
#pragma unroll
      for (int i = 0; i < Items; ++i) {
        A low[V], high[V];
        widen_pair(x, i, low, high);
#pragma unroll
        for (int j = 0; j < V; ++j) squares += low[j] * low[j] + high[j] * high[j];
      }
      squares = warp_reduce(squares, Add{}, blockDim.x);
      rstd = A{1} / std::sqrt(squares / static_cast<A>(a.head_dim) + a.eps);
    }
    if (head >= heads.size) continue;
    if (heads.w && threadIdx.x == 0) a.rstd[spot.norm] = rstd;

#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const Columns& at = lane.pairs[i];
      A low[V], high[V];
      widen_pair(x, i, low, high);
      if (heads.w) {
        A w_low[V], w_high[V];
        widen_pair(w, i, w_low, w_high);
#pragma unroll
        for (int j = 0; j < V; ++j) {
          low[j] = low[j] * rstd * w_low[j];
          high[j] = high[j] * rstd * w_high[j];
        }
      }
      if (at.rotates) rotate<false>(low, high, a.cos + spot.angle + at.angle, a.sin + spot.angle + at.angle);
      store_pair(a.y + spot.head, at, low, high);
    }
  }
}

// What the backward pass reads of a head.
template <class T, int V, int Items>
struct Gradient {
  Held<T, V, Items> dy, x;
  Acc<T> rstd = 1;
  Spot spot;

  __device__ void fetch(const NormRopeBackward<T>& a, const Heads<T>& heads, unsigned i,
                        const Lane<V, Items>& lane) {
    if (i >= heads.size) return;
    spot = Spot(a, heads, i);
    dy.fetch(a.dy + spot.head, lane);
    if (!heads.w) return;
    x.fetch(a.x + spot.head, lane);
    rstd = a.rstd[spot.norm];
  }
};

// A lane's columns of dw, summed over the heads that it saw.
template <class A, int V, int Items>
struct Sums {
  A low[Items][V] = {}, high[Items][V] = {};

  // out[c] for the block's head_dim columns: over the teams of a warp, then over warps. `shared` is
  // [warps, head_dim].
  __device__ void write(A* out, A* shared, const Lane<V, Items>& lane, int head_dim) {
    constexpr int kWarps = kThreads / kWarp;
    const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
    A* row = shared + thread / kWarp * head_dim;
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const Columns& at = lane.pairs[i];
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const A l = over_teams(low[i][j]), h = over_teams(high[i][j]);
        const bool writes = thread % kWarp < blockDim.x;
        if (writes && at.has_low) row[at.low + j] = l;
        if (writes && at.has_high) row[at.high + j] = h;
      }
    }
    __syncthreads();
    for (int c = static_cast<int>(thread); c < head_dim; c += kThreads) {
      A total = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp) total += shared[warp * head_dim + c];
      out[c] = total;
    }
  }
  __device__ static A over_teams(A value) {
    for (int lanes = kWarp / 2; lanes >= static_cast<int>(blockDim.x); lanes /= 2)
      value += __shfl_xor_sync(kAllLanes, value, lanes);
    return value;
  }
};

// g = dn w and dx = rstd (g - x rstd^2 mean(g x)); dw is the sum of dn x rstd.
template <int V, int Items, class T>
__global__ void __launch_bounds__(kThreads, Items == 1 ? 5 : 1)
    backward_kernel(NormRopeBackward<T> a, int64_t per_block) {
  using A = Acc<T>;
  const Heads<T> heads(a, per_block);
  const Lane<V, Items> lane(a, blockIdx.y == 2);
  Held<T, V, Items> w;
  Gradient<T, V, Items> now, next;
  Sums<A, V, Items> dw;
  if (heads.w) w.fetch(heads.w, lane);
  next.fetch(a, heads, threadIdx.y, lane);

  for (unsigned begin = 0; begin < heads.size; begin += heads.at_once) {
    const unsigned head = begin + threadIdx.y;
    const bool valid = head < heads.size;
    now = next;
    next.fetch(a, heads, head + heads.at_once, lane);

    A low[Items][V], high[Items][V], dot = 0;  // dn, then g
#pragma unroll
    for (int i = 0; i < Items; ++i) {
      const Columns& at = lane.pairs[i];
      widen_pair(now.dy, i, low[i], high[i]);
      if (at.rotates)
        rotate<true>(low[i], high[i], a.cos + now.spot.angle + at.angle, a.sin + now.spot.angle + at.angle);
      if (!heads.w || !valid) continue;
      A x_low[V], x_high[V], w_low[V], w_high[V];
      widen_pair(now.x, i, x_low, x_high);
      widen_pair(w, i, w_low, w_high);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        dw.low[i][j] += low[i][j] * x_low[j] * now.rstd;
        dw.high[i][j] += high[i][j] * x_high[j] * now.rstd;
        low[i][j] *= w_low[j];
        high[i][j] *= w_high[j];
        dot += low[i][j] * x_low[j] + high[i][j] * x_high[j];
      }
    }
    if (heads.w) dot = warp_reduce(dot, Add{}, blockDim.x);
    if (!valid) continue;
    const A pull = dot / static_cast<A>(a.head_dim) * now.rstd * now.rstd;

#pragma unroll
    for (int i = 0; i < Items; ++i) {
      if (heads.w) {
        A x_low[V], x_high[V];
        widen_pair(now.x, i, x_low, x_high);
#pragma unroll
        for (int j = 0; j < V; ++j) {
          low[i][j] = now.rstd * (low[i][j] - x_low[j] * pull);
          high[i][j] = now.rstd * (high[i][j] - x_high[j] * pull);
        }
      }
      store_pair(a.dx + now.spot.head, lane.pairs[i], low[i], high[i]);
    }
  }
  if (heads.w)
    dw.write(a.workspace + (2 * blockIdx.x + blockIdx.y) * a.head_dim, reinterpret_cast<A*>(dynamic_shared()),
             lane, static_cast<int>(a.head_dim));
}

// Adds the blocks' partial sums to dq_weight (blockIdx.y = 0) and dk_weight: a lane a column, a warp every
// blockDim.y-th block.
template <class T>
__global__ void add_weight_gradients(NormRopeBackward<T> a, int blocks) {
  using A = Acc<T>;
  if (!(blockIdx.y == 0 ? a.q_weight : a.k_weight)) return;
  const int64_t c = blockIdx.x * kWarp + threadIdx.x;
  A sum = 0;
  if (c < a.head_dim) {
#pragma unroll 8
    for (int b = static_cast<int>(threadIdx.y); b < blocks; b += static_cast<int>(blockDim.y))
      sum += a.workspace[(2 * b + blockIdx.y) * a.head_dim + c];
  }
  __shared__ A sums[kWarp][kWarp];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= a.head_dim) return;
  for (unsigned warp = 1; warp < blockDim.y; ++warp) sum += sums[warp][threadIdx.x];
  (blockIdx.y == 0 ? a.dq_weight : a.dk_weight)[c] += sum;
}

}  // namespace

template <class T>
void run(Cuda on, const NormRopeForward<T>& a) {
  with_shape<T>(a, vectorizable<kVector<T>>(0, a.y), [&](auto v, auto items) {
    const dim3 block = teams(a.head_dim, v);
    const int64_t per_block = tokens_a_block(a, block);
    launch_kernel(forward_kernel<v, items, T>, grid_of_parts(ceil_div(a.tokens, per_block), a.y == a.x),
                  block, 0, on.stream, a, per_block);
  });
}

template <class T>
void run(Cuda on, const NormRopeBackward<T>& a) {
  if (a.tokens == 0) return;
  with_shape<T>(a, vectorizable<kVector<T>>(0, a.dx, a.dy), [&](auto v, auto items) {
    const dim3 block = teams(a.head_dim, v);
    const int64_t per_block = std::max(tokens_a_block(a, block), ceil_div<int64_t>(a.tokens, a.kBlocks));
    const int64_t blocks = ceil_div(a.tokens, per_block);
    const size_t shared = kThreads / kWarp * a.head_dim * sizeof(Acc<T>);
    launch_kernel(backward_kernel<v, items, T>, grid_of_parts(blocks, a.dx == a.dy), block, shared, on.stream,
                  a, per_block);
    if (!a.q_weight && !a.k_weight) return;
    const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(a.head_dim, kWarp)), 2);
    launch_kernel(add_weight_gradients<T>, grid, dim3(kWarp, kWarp), 0, on.stream, a,
                  static_cast<int>(blocks));
  });
}

template void run(Cuda, const NormRopeForward<float>&);
template void run(Cuda, const NormRopeForward<BF16>&);
template void run(Cuda, const NormRopeForward<double>&);
template void run(Cuda, const NormRopeBackward<float>&);
template void run(Cuda, const NormRopeBackward<BF16>&);
template void run(Cuda, const NormRopeBackward<double>&);

}  // namespace switchyard::kernels
