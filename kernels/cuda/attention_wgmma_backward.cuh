// FlashAttention's backward pass on Hopper, without atomics: as in attention_mma_backward.cuh one kernel owns
// keys and walks the queries, another owns queries and walks the keys. Each warpgroup owns 64 rows of one
// side; one warp brings the other side in steps of 64 through the copy engine.
//   dV = P^T dO,   dS = P * (dO V^T - delta),   dK = scale dS^T Q,   dQ = scale dS K
#pragma once

#include "kernels/cuda/attention_mma_backward.cuh"
#include "kernels/cuda/attention_wgmma_pair.cuh"

namespace switchyard::kernels::hopper {

// The steps of a block that owns keys: all query blocks from its own first key on, for each head that shares
// the keys.
struct QueryWalk {
  int first, per_head, share, kv_head;
  __device__ QueryWalk(const AttentionShape& s, int row0, int head)
      : first(row0 / kStep),
        per_head((static_cast<int>(s.seq) + kStep - 1) / kStep - first),
        share(static_cast<int>(s.heads / s.kv_heads)),
        kv_head(head) {}
  __device__ int steps() const { return per_head * share; }
  __device__ int head(int step) const { return kv_head * share + step / per_head; }
  __device__ int query(int step) const { return (first + step % per_head) * kStep; }
};

template <int kDim>
__device__ void own_keys(const PairTiles<kDim>& tiles, const AttentionBackward<BF16>& p,
                         const QueryWalk& walk, const flash::Sequence& s, int block0) {
  using T = PairTiles<kDim>;
  const AttentionShape& shape = p.shape;
  const int thread = threadIdx.x - 128, consumer = thread / 128, lane = thread % 32,
            key0 = block0 + thread / 32 * 16;
  const float scale = shape.scale * flash::kLog2E;
  StepScores weight;
  StepWeights rounded_weight, rounded_ds;
  float dk[kDim / 8][4] = {}, dv[kDim / 8][4] = {};
  const auto release = [&](int step) {
    meet(1 + consumer, 128);  // everyone has read the step's statistics
    if (thread % 128 == 0) arrive(tiles.empty(step));
  };
  const auto start_sums = [&](int step) {
    start_sum<kDim>(dv, rounded_weight, tiles.other(step, 1));
    start_sum<kDim>(dk, rounded_ds, tiles.other(step, 0));
  };
  wait(tiles.own_full(), 0);
  const OwnTile<kDim> keys(tiles.own(consumer, 0)), values(tiles.own(consumer, 1));
  // The sums of a step run while the next one's exponentials are taken, where registers allow.
  constexpr bool kOverlap = kDim == 64;
  const auto turn = [&](int step, auto first) {
    StepScores score, ds;
    wait(tiles.full(step), T::parity(step));
    keys.start_product(score, tiles.other(step, 0));
    if constexpr (kOverlap && !first) start_sums(step - 1);
    values.start_product(ds, tiles.other(step, 1));
    wait_products<kOverlap && !first ? 3 : 1>();
    hold(score);
    const int query0 = walk.query(step);
    if (s.document || query0 < key0 + 15) mask_step<false>(score, key0, query0, s.seq, s.document);
    const float2 *lse = tiles.lse(step), *delta = tiles.delta(step);
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j) {
      const float2 base = lse[4 * j + lane % 4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        weight[j][i] = power_of_two(score[j][i] * scale - (i % 2 ? base.y : base.x));
    }
    wait_products<0>();
    hold(ds);
    if constexpr (kOverlap && !first) release(step - 1);
    round_step(rounded_weight, weight);
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j) {
      const float2 mean = delta[4 * j + lane % 4];
#pragma unroll
      for (int i = 0; i < 4; ++i) weight[j][i] *= ds[j][i] - (i % 2 ? mean.y : mean.x);
    }
    round_step(rounded_ds, weight);
    if constexpr (!kOverlap) {
      start_sums(step);
      wait_products<0>();
      hold(dv);
      hold(dk);
      release(step);
    }
  };
  turn(0, std::true_type());
  for (int step = 1; step < walk.steps(); ++step) turn(step, std::bool_constant<!kOverlap>());
  if constexpr (kOverlap) start_sums(walk.steps() - 1);
  wait_products<0>();
  hold(dv);
  hold(dk);
  BF16* out = p.dqkv + blockIdx.y * shape.seq * shape.row() + (shape.heads + walk.kv_head) * kDim;
  store_gradient<kDim>(out, shape.row(), dk, key0, s.seq, shape.scale);
  store_gradient<kDim>(out + shape.kv_heads * kDim, shape.row(), dv, key0, s.seq, 1);
}

// Two numbers of each query of a step, from global memory to shared memory. A query that does not exist gets
// a weight of exp2(-inf) = 0. By one warp.
struct StepStatistics {
  static constexpr int kEach = kStep / 32;
  float lse[kEach], delta[kEach];

  __device__ StepStatistics(const flash::Sequence& s, int head, int query0) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int query = query0 + 32 * i + static_cast<int>(threadIdx.x % 32);
      const bool exists = query < s.seq;
      const int64_t at = static_cast<int64_t>(head) * s.seq + query;
      lse[i] = exists ? s.lse[at] * flash::kLog2E : INFINITY;
      delta[i] = exists ? s.delta[at] : 0;
    }
  }
  template <int kDim>
  __device__ void store(const PairTiles<kDim>& tiles, int step) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = 32 * i + static_cast<int>(threadIdx.x % 32);
      reinterpret_cast<float*>(tiles.lse(step))[row] = lse[i];
      reinterpret_cast<float*>(tiles.delta(step))[row] = delta[i];
    }
  }
};

__device__ inline flash::Sequence sequence_at(const AttentionBackward<BF16>& p, const float* delta,
                                              int batch) {
  const AttentionShape& s = p.shape;
  const int64_t first = batch * s.seq, statistics = first * s.heads;
  return {p.qkv,
          p.d_o,
          p.lse + statistics,
          delta + statistics,
          p.document ? p.document + first : nullptr,
          static_cast<int>(s.seq)};
}

template <int kDim>
__global__ void __launch_bounds__(kPairThreads, 1)
    key_gradient_kernel(AttentionBackward<BF16> p, const float* delta,
                        const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap d_o) {
#if SWITCHYARD_HOPPER
  using T = PairTiles<kDim>;
  const T tiles{dynamic_shared()};
  const int kv_head = blockIdx.x, batch = blockIdx.y, block0 = blockIdx.z * kPairRows;
  const flash::Sequence s = sequence_at(p, delta, batch);
  const QueryWalk walk(p.shape, block0, kv_head);
  if (threadIdx.x == 0) tiles.init(32);
  __syncthreads();
  if (threadIdx.x < 128) {
    shrink_registers<40>();
    if (threadIdx.x >= 32) return;
    const int key_column = static_cast<int>(p.shape.heads + kv_head) * kDim;
    const Side keys{&qkv, &qkv, key_column, key_column + static_cast<int>(p.shape.kv_heads) * kDim};
    if (threadIdx.x == 0) copy_own<kDim>(tiles, keys, block0, batch);
    StepStatistics next(s, walk.head(0), walk.query(0));
    for (int step = 0; step < walk.steps(); ++step) {
      const int head = walk.head(step);
      wait(tiles.empty(step), T::parity(step) ^ 1);  // passes at once in the first round
      if (threadIdx.x == 0)
        copy_step<kDim>(tiles, Side{&qkv, &d_o, head * kDim, head * kDim}, step, walk.query(step), batch);
      next.store(tiles, step);
      arrive(tiles.full(step));
      __syncwarp();
      if (step + 1 < walk.steps()) next = StepStatistics(s, walk.head(step + 1), walk.query(step + 1));
    }
  } else {
    grow_registers<232>();
    own_keys<kDim>(tiles, p, walk, s, block0);
  }
#endif
}

template <int kDim>
__device__ void own_queries(const PairTiles<kDim>& tiles, const AttentionBackward<BF16>& p,
                            const flash::Sequence& s, int block0, int steps) {
  using T = PairTiles<kDim>;
  const AttentionShape& shape = p.shape;
  const int thread = threadIdx.x - 128, consumer = thread / 128, lane = thread % 32,
            query0 = block0 + thread / 32 * 16;
  const int64_t head = blockIdx.x;
  const float scale = shape.scale * flash::kLog2E;
  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = min(query0 + 8 * half + lane / 4, s.seq - 1);
    lse[half] = s.lse[head * s.seq + row] * flash::kLog2E;
    delta[half] = s.delta[head * s.seq + row];
  }
  StepScores weight;
  StepWeights rounded;
  float dq[kDim / 8][4] = {};
  wait(tiles.own_full(), 0);
  const OwnTile<kDim> queries(tiles.own(consumer, 0)), output_gradients(tiles.own(consumer, 1));
  // The sum of a step runs while the next one's exponentials are taken.
  const auto turn = [&](int step, auto first) {
    StepScores score, ds;
    wait(tiles.full(step), T::parity(step));
    queries.start_product(score, tiles.other(step, 0));
    if constexpr (!first) start_sum<kDim>(dq, rounded, tiles.other(step - 1, 0));
    output_gradients.start_product(ds, tiles.other(step, 1));
    wait_products<first ? 1 : 2>();
    hold(score);
    const int key0 = step * kStep;
    if (s.document || key0 + kStep - 1 > query0) mask_step<true>(score, query0, key0, s.seq, s.document);
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) weight[j][i] = power_of_two(score[j][i] * scale - lse[i / 2]);
    }
    wait_products<0>();
    hold(ds);
    if (!first && thread % 128 == 0) arrive(tiles.empty(step - 1));
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) weight[j][i] *= ds[j][i] - delta[i / 2];
    }
    round_step(rounded, weight);
  };
  turn(0, std::true_type());
  for (int step = 1; step < steps; ++step) turn(step, std::false_type());
  start_sum<kDim>(dq, rounded, tiles.other(steps - 1, 0));
  wait_products<0>();
  hold(dq);
  BF16* out = p.dqkv + blockIdx.y * shape.seq * shape.row() + head * kDim;
  store_gradient<kDim>(out, shape.row(), dq, query0, s.seq, shape.scale);
}

template <int kDim>
__global__ void __launch_bounds__(kPairThreads, 1)
    query_gradient_kernel(AttentionBackward<BF16> p, const float* delta,
                          const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap d_o) {
#if SWITCHYARD_HOPPER
  using T = PairTiles<kDim>;
  const T tiles{dynamic_shared()};
  const AttentionShape& shape = p.shape;
  const int head = blockIdx.x, batch = blockIdx.y, block0 = (gridDim.z - 1 - blockIdx.z) * kPairRows;
  const flash::Sequence s = sequence_at(p, delta, batch);
  const int steps = (min(block0 + kPairRows, s.seq) + kStep - 1) / kStep;
  if (threadIdx.x == 0) tiles.init(0);
  __syncthreads();
  if (threadIdx.x < 128) {
    shrink_registers<40>();
    if (threadIdx.x != 0) return;
    const int heads = static_cast<int>(shape.heads), kv_heads = static_cast<int>(shape.kv_heads),
              key_column = (heads + head / (heads / kv_heads)) * kDim;
    copy_own<kDim>(tiles, Side{&qkv, &d_o, head * kDim, head * kDim}, block0, batch);
    for (int step = 0; step < steps; ++step) {
      wait(tiles.empty(step), T::parity(step) ^ 1);  // passes at once in the first round
      copy_step<kDim>(tiles, Side{&qkv, &qkv, key_column, key_column + kv_heads * kDim}, step, step * kStep,
                      batch);
    }
  } else {
    grow_registers<232>();
    own_queries<kDim>(tiles, p, s, block0, steps);
  }
#endif
}

template <int kDim>
void launch_attention(const AttentionBackward<BF16>& p, const float* delta, cudaStream_t stream) {
  using T = PairTiles<kDim>;
  const AttentionShape& s = p.shape;
  const CUtensorMap qkv = tensor_map(p.qkv, s.row(), s.seq, s.batch, 64),
                    d_o = tensor_map(p.d_o, s.heads * s.head_dim, s.seq, s.batch, 64);
  const unsigned blocks = (s.seq + kPairRows - 1) / kPairRows;
  launch_kernel(key_gradient_kernel<kDim>, dim3(s.kv_heads, s.batch, blocks), dim3(kPairThreads), T::kShared,
                stream, p, delta, qkv, d_o);
  launch_kernel(query_gradient_kernel<kDim>, dim3(s.heads, s.batch, blocks), dim3(kPairThreads), T::kShared,
                stream, p, delta, qkv, d_o);
}

}  // namespace switchyard::kernels::hopper
