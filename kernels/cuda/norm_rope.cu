#include "kernels/norm_rope.h"

#include "kernels/cuda/column_sum.cuh"
#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 256;

// The head of this thread's team: blockDim = (lanes a head, heads a block). Lanes are a power of two up to a
// warp.
template <class T>
struct Head {
  int64_t index;  // among all heads of all tokens; the head's first element is index * head_dim
  int64_t token, slot;
  bool valid;    // teams past the end stay for their warp's shuffles
  const T* w;    // null: no norm
  int64_t half;  // pairs to rotate, 0 for a value head
  const Acc<T>* cos;
  const Acc<T>* sin;

  template <class Args>
  __device__ explicit Head(const Args& a) {
    const int64_t slots = a.heads + 2 * a.kv_heads, rotated = a.heads + a.kv_heads;
    index = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
    valid = index < a.tokens * slots;
    token = index / slots;
    slot = index % slots;
    w = !valid || slot >= rotated ? nullptr : slot < a.heads ? a.q_weight : a.k_weight;
    half = slot < rotated ? a.rotary_dim / 2 : 0;
    cos = a.cos + token % a.seq * half;
    sin = a.sin + token % a.seq * half;
  }
};

template <int V, class T>
__device__ void load_normed(const Head<T>& head, const T* x, int64_t c, Acc<T> rstd, Acc<T> (&out)[V]) {
  load<V>(x + c, out);
  if (!head.w) return;
  Acc<T> w[V];
  load<V>(head.w + c, w);
#pragma unroll
  for (int j = 0; j < V; ++j) out[j] = out[j] * rstd * w[j];
}

template <int V, class T>
__global__ void forward_kernel(NormRopeForward<T> a) {
  using A = Acc<T>;
  const Head<T> head(a);
  const int64_t first = int64_t{threadIdx.x} * V, step = int64_t{blockDim.x} * V;
  const T* x = a.x + head.index * a.head_dim;
  T* y = a.y + head.index * a.head_dim;

  A squares = 0;
  if (head.w) {
    for (int64_t c = first; c < a.head_dim; c += step) {
      A v[V];
      load<V>(x + c, v);
#pragma unroll
      for (int j = 0; j < V; ++j) squares += v[j] * v[j];
    }
  }
  squares = warp_reduce(squares, Add{}, blockDim.x);
  if (!head.valid) return;
  const A rstd = A{1} / std::sqrt(squares / static_cast<A>(a.head_dim) + a.eps);
  if (head.w && threadIdx.x == 0) a.rstd[head.token * (a.heads + a.kv_heads) + head.slot] = rstd;

  for (int64_t c = first; c < head.half; c += step) {
    A low[V], high[V], cos[V], sin[V];
    load_normed<V>(head, x, c, rstd, low);
    load_normed<V>(head, x, c + head.half, rstd, high);
    load<V>(head.cos + c, cos);
    load<V>(head.sin + c, sin);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const A rotated = low[j] * cos[j] - high[j] * sin[j];
      high[j] = high[j] * cos[j] + low[j] * sin[j];
      low[j] = rotated;
    }
    store<V>(y + c, low);
    store<V>(y + c + head.half, high);
  }
  for (int64_t c = 2 * head.half + first; c < a.head_dim; c += step) {
    A v[V];
    load_normed<V>(head, x, c, rstd, v);
    store<V>(y + c, v);
  }
}

// The rotation's transpose of dy at columns c .. c + V - 1, which lie in one half or past both.
template <int V, class T>
__device__ void load_unrotated(const T* dy, const Acc<T>* cos, const Acc<T>* sin, int64_t half, int64_t c,
                               Acc<T> (&out)[V]) {
  load<V>(dy + c, out);
  if (c >= 2 * half) return;
  const bool low = c < half;
  const int64_t angle = low ? c : c - half;
  Acc<T> other[V], cosines[V], sines[V];
  load<V>(dy + (low ? c + half : c - half), other);
  load<V>(cos + angle, cosines);
  load<V>(sin + angle, sines);
#pragma unroll
  for (int j = 0; j < V; ++j) out[j] = out[j] * cosines[j] + (low ? other[j] : -other[j]) * sines[j];
}

// g = dn w and dx = rstd (g - x rstd^2 mean(g x)), in two passes over a head that the second finds in the
// cache.
template <int V, class T>
__global__ void backward_kernel(NormRopeBackward<T> a) {
  using A = Acc<T>;
  const Head<T> head(a);
  const int64_t first = int64_t{threadIdx.x} * V, step = int64_t{blockDim.x} * V;
  const T* dy = a.dy + head.index * a.head_dim;
  const T* x = a.x + head.index * a.head_dim;
  T* dx = a.dx + head.index * a.head_dim;

  A dot = 0;
  if (head.w) {
    for (int64_t c = first; c < a.head_dim; c += step) {
      A g[V], v[V], w[V];
      load_unrotated<V>(dy, head.cos, head.sin, head.half, c, g);
      load<V>(x + c, v);
      load<V>(head.w + c, w);
#pragma unroll
      for (int j = 0; j < V; ++j) dot += g[j] * w[j] * v[j];
    }
  }
  dot = warp_reduce(dot, Add{}, blockDim.x);
  if (!head.valid) return;
  const A rstd = head.w ? a.rstd[head.token * (a.heads + a.kv_heads) + head.slot] : A{1};
  const A pull = dot / static_cast<A>(a.head_dim) * rstd * rstd;

  for (int64_t c = first; c < a.head_dim; c += step) {
    A g[V];
    load_unrotated<V>(dy, head.cos, head.sin, head.half, c, g);
    if (head.w) {
      A v[V], w[V];
      load<V>(x + c, v);
      load<V>(head.w + c, w);
#pragma unroll
      for (int j = 0; j < V; ++j) g[j] = rstd * (g[j] * w[j] - v[j] * pull);
    }
    store<V>(dx + c, g);
  }
}

// dn * x * rstd of head r % count of token r / count, the heads from slot `first` on.
template <class T>
struct WeightGradient {
  NormRopeBackward<T> a;
  int64_t first, count;
  template <int V>
  __device__ void operator()(int64_t r, int64_t c, Acc<T> (&out)[V]) const {
    const int64_t token = r / count, slot = first + r % count, half = a.rotary_dim / 2;
    const int64_t head = (token * (a.heads + 2 * a.kv_heads) + slot) * a.head_dim;
    const int64_t position = token % a.seq;
    const Acc<T> rstd = a.rstd[token * (a.heads + a.kv_heads) + slot];
    Acc<T> x[V];
    load_unrotated<V>(a.dy + head, a.cos + position * half, a.sin + position * half, half, c, out);
    load<V>(a.x + head + c, x);
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] *= x[j] * rstd;
  }
};

template <int V, class Args>
bool wide_heads(const Args& a) {
  return a.rotary_dim % (2 * V) == 0 &&
         vectorizable<V>(a.head_dim, a.x, a.q_weight, a.k_weight, a.cos, a.sin);
}

// One thread per V pairs of a head, up to a warp.
dim3 head_block(int64_t head_dim, int v) {
  unsigned lanes = 1;
  while (lanes < kWarp && lanes * 2 * v < head_dim) lanes *= 2;
  return dim3(lanes, kThreads / lanes);
}

}  // namespace

template <class T>
void run(Cuda on, const NormRopeForward<T>& a) {
  constexpr int V = kVector<T>;
  with_width<V>(wide_heads<V>(a) && vectorizable<V>(0, a.y), [&](auto v) {
    const dim3 block = head_block(a.head_dim, v);
    launch_kernel(forward_kernel<v, T>, team_grid(a.tokens * (a.heads + 2 * a.kv_heads), block), block, 0,
                  on.stream, a);
  });
}

template <class T>
void run(Cuda on, const NormRopeBackward<T>& a) {
  constexpr int V = kVector<T>;
  constexpr int kBlocks = NormRopeBackward<T>::kBlocks;
  with_width<V>(wide_heads<V>(a) && vectorizable<V>(0, a.dx, a.dy), [&](auto v) {
    const int64_t d = a.head_dim;
    if (a.q_weight)
      launch_column_sum<v>(on, a.dq_weight, a.workspace, 2 * d, a.tokens * a.heads, d, kBlocks,
                           WeightGradient<T>{a, 0, a.heads});
    if (a.k_weight)
      launch_column_sum<v>(on, a.dk_weight, a.workspace + d, 2 * d, a.tokens * a.kv_heads, d, kBlocks,
                           WeightGradient<T>{a, a.heads, a.kv_heads});
    const dim3 block = head_block(d, v);
    launch_kernel(backward_kernel<v, T>, team_grid(a.tokens * (a.heads + 2 * a.kv_heads), block), block, 0,
                  on.stream, a);
  });
}

template void run(Cuda, const NormRopeForward<float>&);
template void run(Cuda, const NormRopeForward<BF16>&);
template void run(Cuda, const NormRopeForward<double>&);
template void run(Cuda, const NormRopeBackward<float>&);
template void run(Cuda, const NormRopeBackward<BF16>&);
template void run(Cuda, const NormRopeBackward<double>&);

}  // namespace switchyard::kernels
