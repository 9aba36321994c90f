// FlashAttention's backward pass without atomics: one kernel owns keys and walks the queries (dK, dV),
// another owns queries and walks the keys (dQ). Both recompute P from the scores and lse:
//   delta = rowsum(dO * O),   dS = P * (dO V^T - delta)
//   dV = P^T dO,   dK = scale dS^T Q,   dQ = scale dS K
#pragma once

#include "kernels/cuda/attention_mma.cuh"

namespace switchyard::kernels::flash {

// What both kernels know of their block.
struct Sequence {
  const BF16 *qkv, *d_o;     // the sequence's first row
  const float *lse, *delta;  // of the sequence's head 0
  const int32_t* document;   // or null
  int seq;
};

__device__ inline Sequence sequence_of(const AttentionBackward<BF16>& p, const float* delta) {
  const AttentionShape& s = p.shape;
  const int64_t first = blockIdx.z * s.seq, statistics = first * s.heads;
  return {p.qkv + first * s.row(), p.d_o + first * s.heads * s.head_dim,      p.lse + statistics,
          delta + statistics,      p.document ? p.document + first : nullptr, static_cast<int>(s.seq)};
}

// The statistics of kColumns queries from `first` on; one that does not exist gets the weight exp2(-inf) = 0.
__device__ inline void load_statistics(float (&lse)[kColumns], float (&delta)[kColumns], const Sequence& s,
                                       int64_t head, int first) {
  const int i = threadIdx.x;
  if (i >= kColumns) return;
  const bool exists = first + i < s.seq;
  lse[i] = exists ? s.lse[head * s.seq + first + i] * kLog2E : INFINITY;
  delta[i] = exists ? s.delta[head * s.seq + first + i] : 0;
}

template <int kDim>
constexpr size_t kKeyShared = tile_bytes(6 * kColumns, kDim);

// A warp owns 16 keys; scores are transposed: s[key, query].
template <int kDim>
__global__ void __launch_bounds__(kThreads, 2)
    key_gradient_kernel(AttentionBackward<BF16> p, const float* delta) {
  constexpr int kRows = 16 * kWarps;
  const AttentionShape& shape = p.shape;
  const Sequence s = sequence_of(p, delta);
  const int64_t kv_head = blockIdx.y, share = shape.heads / shape.kv_heads,
                key_at = (shape.heads + kv_head) * kDim;
  const int block0 = blockIdx.x * kRows;  // the first keys meet the most queries: the longest first

  __shared__ float lse[2][kColumns], deltas[2][kColumns];
  unsigned char* shared = dynamic_shared();
  const Tile<kDim> k = tile_at<kRows, kDim>(shared), v = tile_at<kRows, kDim>(shared);
  const Stages<kDim> q = stages_at<kDim>(shared);
  const Stages<kDim> d_o = stages_at<kDim>(shared);
  const int first_step = block0 / kColumns, steps_per_head = (s.seq + kColumns - 1) / kColumns - first_step;
  const int steps = steps_per_head * static_cast<int>(share);
  const auto query_of = [&](int step) { return (first_step + step % steps_per_head) * kColumns; };
  const auto copy = [&](int step) {
    const int64_t head = kv_head * share + step / steps_per_head;
    const int query0 = query_of(step);
    copy_rows<kColumns, kDim>(q[step], {s.qkv + head * kDim, shape.row()}, query0, s.seq);
    copy_rows<kColumns, kDim>(d_o[step], {s.d_o + head * kDim, shape.heads * kDim}, query0, s.seq);
    commit_copies();
    load_statistics(lse[step % 2], deltas[step % 2], s, head, query0);
  };
  copy_rows<kRows, kDim>(k, {s.qkv + key_at, shape.row()}, block0, s.seq);
  copy_rows<kRows, kDim>(v, {s.qkv + key_at + shape.kv_heads * kDim, shape.row()}, block0, s.seq);
  copy(0);

  const int lane = threadIdx.x % 32, m = threadIdx.x / 32 * 16, key0 = block0 + m;
  const float scale = shape.scale * kLog2E;
  Rows<1, kDim> dk = {}, dv = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<0>();
    __syncthreads();
    if (step + 1 < steps) copy(step + 1);
    const int stage = step % 2, query0 = query_of(step);
    Rows<1, kColumns> weight = {}, ds = {};
    multiply_rows<1, kDim>(weight, k, m, q[step]);
    multiply_rows<1, kDim>(ds, v, m, d_o[step]);
    const bool masked = s.document || query0 < key0 + 15;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 8 * j + lane % 4 * 2 + i % 2, key = key0 + i / 2 * 8 + lane / 4;
        float w = exp2f(weight[0][j][i] * scale - lse[stage][column]);
        if (masked && (key >= s.seq || !visible(query0 + column, key, s.seq, s.document))) w = 0;
        weight[0][j][i] = w;
        ds[0][j][i] = w * (ds[0][j][i] - deltas[stage][column]);
      }
    }
    multiply_weights<1, kDim>(dv, weight, d_o[step]);
    multiply_weights<1, kDim>(dk, ds, q[step]);
  }
  BF16* out = p.dqkv + blockIdx.z * shape.seq * shape.row() + key_at;
  store_rows<1, kDim>(out, shape.row(), dk, key0, s.seq, shape.scale);
  store_rows<1, kDim>(out + shape.kv_heads * kDim, shape.row(), dv, key0, s.seq, 1);
}

template <int kDim>
constexpr size_t kQueryShared = tile_bytes(6 * kColumns, kDim);

// A warp owns 16 queries.
template <int kDim>
__global__ void __launch_bounds__(kThreads, 2)
    query_gradient_kernel(AttentionBackward<BF16> p, const float* delta) {
  constexpr int kRows = 16 * kWarps;
  const AttentionShape& shape = p.shape;
  const Sequence s = sequence_of(p, delta);
  const int64_t head = blockIdx.y, key_at = (shape.heads + head / (shape.heads / shape.kv_heads)) * kDim;
  const int block0 = (gridDim.x - 1 - blockIdx.x) * kRows;

  unsigned char* shared = dynamic_shared();
  const Tile<kDim> q = tile_at<kRows, kDim>(shared), d_o = tile_at<kRows, kDim>(shared);
  const Stages<kDim> k = stages_at<kDim>(shared);
  const Stages<kDim> v = stages_at<kDim>(shared);
  const int steps = (min(block0 + kRows, s.seq) + kColumns - 1) / kColumns;
  const auto copy = [&](int step) {
    copy_rows<kColumns, kDim>(k[step], {s.qkv + key_at, shape.row()}, step * kColumns, s.seq);
    copy_rows<kColumns, kDim>(v[step], {s.qkv + key_at + shape.kv_heads * kDim, shape.row()}, step * kColumns,
                              s.seq);
    commit_copies();
  };
  copy_rows<kRows, kDim>(q, {s.qkv + head * kDim, shape.row()}, block0, s.seq);
  copy_rows<kRows, kDim>(d_o, {s.d_o + head * kDim, shape.heads * kDim}, block0, s.seq);
  copy(0);

  const int lane = threadIdx.x % 32, m = threadIdx.x / 32 * 16, query0 = block0 + m;
  const float scale = shape.scale * kLog2E;
  float lse[2], row_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = min(query0 + 8 * half + lane / 4, s.seq - 1);
    lse[half] = s.lse[head * s.seq + row] * kLog2E;
    row_delta[half] = s.delta[head * s.seq + row];
  }
  Rows<1, kDim> dq = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<0>();
    __syncthreads();
    if (step + 1 < steps) copy(step + 1);
    const int key0 = step * kColumns;
    Rows<1, kColumns> weight = {}, ds = {};
    multiply_rows<1, kDim>(weight, q, m, k[step]);
    multiply_rows<1, kDim>(ds, d_o, m, v[step]);
    const bool masked = s.document || key0 + kColumns - 1 > query0;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int query = query0 + i / 2 * 8 + lane / 4, key = key0 + 8 * j + lane % 4 * 2 + i % 2;
        float w = exp2f(weight[0][j][i] * scale - lse[i / 2]);
        if (masked && !visible(query, key, s.seq, s.document)) w = 0;
        ds[0][j][i] = w * (ds[0][j][i] - row_delta[i / 2]);
      }
    }
    multiply_weights<1, kDim>(dq, ds, k[step]);
  }
  BF16* out = p.dqkv + blockIdx.z * shape.seq * shape.row() + head * kDim;
  store_rows<1, kDim>(out, shape.row(), dq, query0, s.seq, shape.scale);
}

template <int kDim>
void launch_backward(const AttentionBackward<BF16>& p, const float* delta, cudaStream_t stream) {
  const unsigned blocks = (p.shape.seq + 16 * kWarps - 1) / (16 * kWarps);
  launch_kernel(key_gradient_kernel<kDim>, dim3(blocks, p.shape.kv_heads, p.shape.batch), dim3(kThreads),
                kKeyShared<kDim>, stream, p, delta);
  launch_kernel(query_gradient_kernel<kDim>, dim3(blocks, p.shape.heads, p.shape.batch), dim3(kThreads),
                kQueryShared<kDim>, stream, p, delta);
}

}  // namespace switchyard::kernels::flash
