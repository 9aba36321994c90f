// Attention on the ordinary arithmetic units, for float32, double and head sizes that the tensor-core kernels
// do not take: one warp per row, which walks the rows it meets one by one. Every sum has a fixed order.
#pragma once

#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::simt {

constexpr int kRowWarps = 4;                  // rows per block
constexpr int kMaxHeadDim = kMaxCudaHeadDim;  // 32 lanes times 8 parts

template <class A>
__device__ A warp_sum(A x) {
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
  return x;
}

// Component lane + 32 i of a row in part i; 0 past its end.
template <int kParts, class T>
__device__ void load_row(Acc<T> (&out)[kParts], const T* row, int dim) {
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const int d = threadIdx.x % 32 + 32 * i;
    out[i] = d < dim ? static_cast<Acc<T>>(row[d]) : Acc<T>(0);
  }
}

template <int kParts, class T>
__device__ void store_row(T* row, const Acc<T> (&x)[kParts], int dim) {
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
    const int d = threadIdx.x % 32 + 32 * i;
    if (d < dim) row[d] = T(x[i]);
  }
}

template <int kParts, class A>
__device__ A dot(const A (&x)[kParts], const A (&y)[kParts]) {
  A sum = 0;
#pragma unroll
  for (int i = 0; i < kParts; ++i) sum += x[i] * y[i];
  return warp_sum(sum);
}

__device__ inline bool same_document(const int32_t* document, int64_t a, int64_t b) {
  return !document || document[a] == document[b];
}

template <int kParts, class T>
__global__ void forward_kernel(AttentionForward<T> p) {
  using A = Acc<T>;
  const AttentionShape& s = p.shape;
  const int dim = static_cast<int>(s.head_dim);
  const int64_t row = blockIdx.x * kRowWarps + threadIdx.x / 32, head = blockIdx.y,
                first = blockIdx.z * s.seq;
  if (row >= s.seq) return;
  const T* keys = p.qkv + (s.heads + head / (s.heads / s.kv_heads)) * dim;
  const T* values = keys + s.kv_heads * dim;
  A q[kParts], o[kParts] = {}, largest = -INFINITY, sum = 0;
  load_row<kParts>(q, p.qkv + (first + row) * s.row() + head * dim, dim);
  for (int64_t j = first; j <= first + row; ++j) {
    if (!same_document(p.document, first + row, j)) continue;
    A k[kParts], v[kParts];
    load_row<kParts>(k, keys + j * s.row(), dim);
    load_row<kParts>(v, values + j * s.row(), dim);
    const A score = A(s.scale) * dot<kParts>(q, k);
    const A next = score > largest ? score : largest;
    const A shrink = std::exp(largest - next), weight = std::exp(score - next);
    largest = next;
    sum = sum * shrink + weight;
#pragma unroll
    for (int i = 0; i < kParts; ++i) o[i] = o[i] * shrink + weight * v[i];
  }
#pragma unroll
  for (int i = 0; i < kParts; ++i) o[i] /= sum;
  store_row<kParts>(p.o + ((first + row) * s.heads + head) * dim, o, dim);
  if (threadIdx.x % 32 == 0) p.lse[(blockIdx.z * s.heads + head) * s.seq + row] = largest + std::log(sum);
}

// delta[batch, head, row] = sum over the head's components of dO * O: blockDim.x lanes each, a power of two
// of them.
template <int V, class T>
__global__ void delta_kernel(Acc<T>* delta, const T* d_o, const T* o, AttentionShape s) {
  const int64_t index = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;  // of [batch, seq, heads]
  const bool valid = index < s.batch * s.seq * s.heads;  // others stay for their warp's shuffles
  const int64_t at = index * s.head_dim;
  Acc<T> sum = 0;
  for (int64_t d = threadIdx.x * V; valid && d < s.head_dim; d += blockDim.x * V) {
    Acc<T> x[V], y[V];
    load<V>(d_o + at + d, x);
    load<V>(o + at + d, y);
#pragma unroll
    for (int j = 0; j < V; ++j) sum += x[j] * y[j];
  }
  sum = warp_reduce(sum, Add{}, blockDim.x);
  const int64_t token = index / s.heads, head = index % s.heads;
  if (valid && threadIdx.x == 0) delta[(token / s.seq * s.heads + head) * s.seq + token % s.seq] = sum;
}

// dq[i] = sum_j scale * p_ij (dO_i.v_j - delta_i) k_j
template <int kParts, class T>
__global__ void query_gradient_kernel(AttentionBackward<T> p, const Acc<T>* delta) {
  using A = Acc<T>;
  const AttentionShape& s = p.shape;
  const int dim = static_cast<int>(s.head_dim);
  const int64_t row = blockIdx.x * kRowWarps + threadIdx.x / 32, head = blockIdx.y,
                first = blockIdx.z * s.seq;
  if (row >= s.seq) return;
  const T* keys = p.qkv + (s.heads + head / (s.heads / s.kv_heads)) * dim;
  const T* values = keys + s.kv_heads * dim;
  const int64_t statistic = (blockIdx.z * s.heads + head) * s.seq + row;
  A q[kParts], d_o[kParts], dq[kParts] = {};
  load_row<kParts>(q, p.qkv + (first + row) * s.row() + head * dim, dim);
  load_row<kParts>(d_o, p.d_o + ((first + row) * s.heads + head) * dim, dim);
  for (int64_t j = first; j <= first + row; ++j) {
    if (!same_document(p.document, first + row, j)) continue;
    A k[kParts], v[kParts];
    load_row<kParts>(k, keys + j * s.row(), dim);
    load_row<kParts>(v, values + j * s.row(), dim);
    const A weight = std::exp(A(s.scale) * dot<kParts>(q, k) - p.lse[statistic]);
    const A dscore = A(s.scale) * weight * (dot<kParts>(d_o, v) - delta[statistic]);
#pragma unroll
    for (int i = 0; i < kParts; ++i) dq[i] += dscore * k[i];
  }
  store_row<kParts>(p.dqkv + (first + row) * s.row() + head * dim, dq, dim);
}

// dv[j] = sum_i p_ij dO_i,   dk[j] = sum_i scale * p_ij (dO_i.v_j - delta_i) q_i, over the query heads of key
// head blockIdx.y in order.
template <int kParts, class T>
__global__ void key_gradient_kernel(AttentionBackward<T> p, const Acc<T>* delta) {
  using A = Acc<T>;
  const AttentionShape& s = p.shape;
  const int dim = static_cast<int>(s.head_dim);
  const int64_t row = blockIdx.x * kRowWarps + threadIdx.x / 32, kv_head = blockIdx.y,
                first = blockIdx.z * s.seq;
  if (row >= s.seq) return;
  const int64_t key_at = (first + row) * s.row() + (s.heads + kv_head) * dim, share = s.heads / s.kv_heads;
  A k[kParts], v[kParts], dk[kParts] = {}, dv[kParts] = {};
  load_row<kParts>(k, p.qkv + key_at, dim);
  load_row<kParts>(v, p.qkv + key_at + s.kv_heads * dim, dim);
  for (int64_t head = kv_head * share; head < (kv_head + 1) * share; ++head) {
    const int64_t statistics = (blockIdx.z * s.heads + head) * s.seq - first;
    for (int64_t i = first + row; i < first + s.seq; ++i) {
      if (!same_document(p.document, i, first + row)) continue;
      A q[kParts], d_o[kParts];
      load_row<kParts>(q, p.qkv + i * s.row() + head * dim, dim);
      load_row<kParts>(d_o, p.d_o + (i * s.heads + head) * dim, dim);
      const A weight = std::exp(A(s.scale) * dot<kParts>(q, k) - p.lse[statistics + i]);
      const A dscore = A(s.scale) * weight * (dot<kParts>(d_o, v) - delta[statistics + i]);
#pragma unroll
      for (int e = 0; e < kParts; ++e) {
        dv[e] += weight * d_o[e];
        dk[e] += dscore * q[e];
      }
    }
  }
  store_row<kParts>(p.dqkv + key_at, dk, dim);
  store_row<kParts>(p.dqkv + key_at + s.kv_heads * dim, dv, dim);
}

inline dim3 row_grid(const AttentionShape& s, int64_t heads) {
  return dim3((s.seq + kRowWarps - 1) / kRowWarps, heads, s.batch);
}

constexpr int kRowThreads = 32 * kRowWarps;

template <class T>
void launch_delta(Acc<T>* delta, const AttentionBackward<T>& p, cudaStream_t stream) {
  const AttentionShape& s = p.shape;
  with_width<kVector<T>>(vectorizable<kVector<T>>(s.head_dim, p.d_o, p.o), [&](auto v) {
    unsigned lanes = 1;
    while (lanes < kWarp && lanes * v < s.head_dim) lanes *= 2;
    const dim3 block(lanes, kMapThreads / lanes);
    launch_kernel(delta_kernel<v, T>, team_grid(s.batch * s.seq * s.heads, block), block, 0, stream, delta,
                  p.d_o, p.o, s);
  });
}

template <int kParts, class T>
void launch_forward(const AttentionForward<T>& p, cudaStream_t stream) {
  launch_kernel(forward_kernel<kParts, T>, row_grid(p.shape, p.shape.heads), dim3(kRowThreads), 0, stream, p);
}

template <int kParts, class T>
void launch_backward(const AttentionBackward<T>& p, const Acc<T>* delta, cudaStream_t stream) {
  launch_kernel(query_gradient_kernel<kParts, T>, row_grid(p.shape, p.shape.heads), dim3(kRowThreads), 0,
                stream, p, delta);
  launch_kernel(key_gradient_kernel<kParts, T>, row_grid(p.shape, p.shape.kv_heads), dim3(kRowThreads), 0,
                stream, p, delta);
}

}  // namespace switchyard::kernels::simt
