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

// The tiles that a warpgroup owns are in registers, or no longer needed: the next piece's may come.
template <int kDim>
__device__ void release_own(const PairTiles<kDim>& tiles, int consumer) {
  meet(1 + consumer, 128);
  if (threadIdx.x % 128 == 0) arrive(tiles.own_empty());
}

// The first of the walk's steps is step `at` of the block, the piece of work its number `turn`.
template <int kDim>
__device__ void own_keys(const PairTiles<kDim>& tiles, const AttentionBackward<BF16>& p,
                         const QueryWalk& walk, const flash::Sequence& s, const HeadPiece& work, int at,
                         int turn_number) {
  using T = PairTiles<kDim>;
  const AttentionShape& shape = p.shape;
  const int thread = threadIdx.x - 128, consumer = thread / 128, lane = thread % 32,
            key0 = work.piece * kPairRows + thread / 32 * 16;
  const float scale = shape.scale * flash::kLog2E;
  StepScores weight;
  StepWeights rounded_weight, rounded_ds;
  float dk[kDim / 8][4] = {}, dv[kDim / 8][4] = {};
  const auto release = [&](int step) {
    meet(1 + consumer, 128);  // everyone has read the step's statistics
    if (thread % 128 == 0) arrive(tiles.empty(at + step));
  };
  const auto start_sums = [&](int step) {
    start_sum<kDim>(dv, rounded_weight, tiles.other(at + step, 1));
    start_sum<kDim>(dk, rounded_ds, tiles.other(at + step, 0));
  };
  wait(tiles.own_full(), turn_number % 2);
  const OwnTile<kDim> keys(tiles.own(consumer, 0)), values(tiles.own(consumer, 1));
  if constexpr (OwnTile<kDim>::kInRegisters) release_own(tiles, consumer);
  // The sums of a step run while the next one's exponentials are taken, where registers allow.
  constexpr bool kOverlap = kDim == 64;
  const auto turn = [&](int step, auto first) {
    StepScores score, ds;
    wait(tiles.full(at + step), T::parity(at + step));
    keys.start_product(score, tiles.other(at + step, 0));
    if constexpr (kOverlap && !first) start_sums(step - 1);
    values.start_product(ds, tiles.other(at + step, 1));
    wait_products<kOverlap && !first ? 3 : 1>();
    hold(score);
    const int query0 = walk.query(step);
    if (s.document || query0 < key0 + 15) mask_step<false>(score, key0, query0, s.seq, s.document);
    const float2 *lse = tiles.lse(at + step), *delta = tiles.delta(at + step);
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
  for (int step = 1; step < walk.steps(); ++step) turn(step, std::false_type());
  if constexpr (kOverlap) {
    start_sums(walk.steps() - 1);
    wait_products<0>();
    hold(dv);
    hold(dk);
    release(walk.steps() - 1);
  }
  if constexpr (!OwnTile<kDim>::kInRegisters) release_own(tiles, consumer);
  BF16* out = p.dqkv + work.batch * shape.seq * shape.row() + (shape.heads + walk.kv_head) * kDim;
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
  __device__ void store(const PairTiles<kDim>& tiles, int at) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = 32 * i + static_cast<int>(threadIdx.x % 32);
      reinterpret_cast<float*>(tiles.lse(at))[row] = lse[i];
      reinterpret_cast<float*>(tiles.delta(at))[row] = delta[i];
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

// By one warp: the piece's own keys and values, then every step's queries and output gradients.
template <int kDim>
__device__ void bring_queries(const PairTiles<kDim>& tiles, const AttentionShape& shape,
                              const QueryWalk& walk, const flash::Sequence& s, const HeadPiece& work, int at,
                              int turn, const CUtensorMap* qkv, const CUtensorMap* d_o) {
  using T = PairTiles<kDim>;
  const bool first_lane = threadIdx.x == 0;
  const int key_column = static_cast<int>(shape.heads + work.head) * kDim;
  const Side keys{qkv, qkv, key_column, key_column + static_cast<int>(shape.kv_heads) * kDim};
  if (first_lane) copy_own<kDim>(tiles, keys, work.piece * kPairRows, work.batch, turn);
  StepStatistics next(s, walk.head(0), walk.query(0));
  for (int step = 0; step < walk.steps(); ++step, ++at) {
    const int head = walk.head(step);
    wait(tiles.empty(at), T::parity(at) ^ 1);  // passes at once in the first round
    if (first_lane)
      copy_step<kDim>(tiles, Side{qkv, d_o, head * kDim, head * kDim}, at, walk.query(step), work.batch);
    next.store(tiles, at);
    arrive(tiles.full(at));
    __syncwarp();
    if (step + 1 < walk.steps()) next = StepStatistics(s, walk.head(step + 1), walk.query(step + 1));
  }
}

template <int kDim>
__global__ void __launch_bounds__(kPairThreads, 1)
    key_gradient_kernel(AttentionBackward<BF16> p, const float* delta, HeadOrder order,
                        const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap d_o) {
  const PairTiles<kDim> tiles{dynamic_shared()};
  if (threadIdx.x == 0) tiles.init(32);
  __syncthreads();
  int at = 0;
  if (threadIdx.x < 128) {
    shrink_registers<40>();
    if (threadIdx.x >= 32) return;
    order.for_each_piece([&](const HeadPiece& work, int turn) {  // the first keys meet the most queries
      const QueryWalk walk(p.shape, work.piece * kPairRows, work.head);
      bring_queries<kDim>(tiles, p.shape, walk, sequence_at(p, delta, work.batch), work, at, turn, &qkv,
                          &d_o);
      at += walk.steps();
    });
  } else {
    grow_registers<232>();
    order.for_each_piece([&](const HeadPiece& work, int turn) {
      const QueryWalk walk(p.shape, work.piece * kPairRows, work.head);
      own_keys<kDim>(tiles, p, walk, sequence_at(p, delta, work.batch), work, at, turn);
      at += walk.steps();
    });
  }
}

// A piece of work: queries from row0 on against `steps` steps of keys.
struct KeyWalk {
  int row0, steps;
  __device__ KeyWalk(const HeadOrder& order, const HeadPiece& work,
                     int seq)  // the last queries meet the most keys
      : row0((order.pieces - 1 - work.piece) * kPairRows),
        steps((min(row0 + kPairRows, seq) + kStep - 1) / kStep) {}
};

template <int kDim>
__device__ void own_queries(const PairTiles<kDim>& tiles, const AttentionBackward<BF16>& p,
                            const flash::Sequence& s, const HeadPiece& work, const KeyWalk& walk, int at,
                            int turn_number) {
  using T = PairTiles<kDim>;
  const AttentionShape& shape = p.shape;
  const int thread = threadIdx.x - 128, consumer = thread / 128, lane = thread % 32,
            query0 = walk.row0 + thread / 32 * 16;
  const int64_t head = work.head;
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
  wait(tiles.own_full(), turn_number % 2);
  const OwnTile<kDim> queries(tiles.own(consumer, 0)), output_gradients(tiles.own(consumer, 1));
  if constexpr (OwnTile<kDim>::kInRegisters) release_own(tiles, consumer);
  // The sum of a step runs while the next one's exponentials are taken.
  const auto turn = [&](int step, auto first) {
    StepScores score, ds;
    wait(tiles.full(at + step), T::parity(at + step));
    queries.start_product(score, tiles.other(at + step, 0));
    if constexpr (!first) start_sum<kDim>(dq, rounded, tiles.other(at + step - 1, 0));
    output_gradients.start_product(ds, tiles.other(at + step, 1));
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
    if (!first && thread % 128 == 0) arrive(tiles.empty(at + step - 1));
#pragma unroll
    for (int j = 0; j < kStep / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) weight[j][i] *= ds[j][i] - delta[i / 2];
    }
    round_step(rounded, weight);
  };
  turn(0, std::true_type());
  for (int step = 1; step < walk.steps; ++step) turn(step, std::false_type());
  start_sum<kDim>(dq, rounded, tiles.other(at + walk.steps - 1, 0));
  wait_products<0>();
  hold(dq);
  if (thread % 128 == 0) arrive(tiles.empty(at + walk.steps - 1));
  if constexpr (!OwnTile<kDim>::kInRegisters) release_own(tiles, consumer);
  BF16* out = p.dqkv + work.batch * shape.seq * shape.row() + head * kDim;
  store_gradient<kDim>(out, shape.row(), dq, query0, s.seq, shape.scale);
}

// By one thread: the piece's own queries and output gradients, then every step's keys and values.
template <int kDim>
__device__ void bring_keys(const PairTiles<kDim>& tiles, const AttentionShape& shape, const HeadPiece& work,
                           const KeyWalk& walk, int at, int turn, const CUtensorMap* qkv,
                           const CUtensorMap* d_o) {
  using T = PairTiles<kDim>;
  const int heads = static_cast<int>(shape.heads), kv_heads = static_cast<int>(shape.kv_heads),
            key_column = (heads + work.head / (heads / kv_heads)) * kDim;
  copy_own<kDim>(tiles, Side{qkv, d_o, work.head * kDim, work.head * kDim}, walk.row0, work.batch, turn);
  for (int step = 0; step < walk.steps; ++step, ++at) {
    wait(tiles.empty(at), T::parity(at) ^ 1);  // passes at once in the first round
    copy_step<kDim>(tiles, Side{qkv, qkv, key_column, key_column + kv_heads * kDim}, at, step * kStep,
                    work.batch);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kPairThreads, 1)
    query_gradient_kernel(AttentionBackward<BF16> p, const float* delta, HeadOrder order,
                          const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap d_o) {
  const PairTiles<kDim> tiles{dynamic_shared()};
  const int seq = static_cast<int>(p.shape.seq);
  if (threadIdx.x == 0) tiles.init(0);
  __syncthreads();
  int at = 0;
  if (threadIdx.x < 128) {
    shrink_registers<40>();
    if (threadIdx.x != 0) return;
    order.for_each_piece([&](const HeadPiece& work, int turn) {
      const KeyWalk walk(order, work, seq);
      bring_keys<kDim>(tiles, p.shape, work, walk, at, turn, &qkv, &d_o);
      at += walk.steps;
    });
  } else {
    grow_registers<232>();
    order.for_each_piece([&](const HeadPiece& work, int turn) {
      const KeyWalk walk(order, work, seq);
      own_queries<kDim>(tiles, p, sequence_at(p, delta, work.batch), work, walk, at, turn);
      at += walk.steps;
    });
  }
}

template <int kDim>
void launch_attention(const AttentionBackward<BF16>& p, const float* delta, int multiprocessors,
                      cudaStream_t stream) {
  using T = PairTiles<kDim>;
  const AttentionShape& s = p.shape;
  const CUtensorMap qkv = tensor_map(p.qkv, s.row(), s.seq, s.batch, 64),
                    d_o = tensor_map(p.d_o, s.heads * s.head_dim, s.seq, s.batch, 64);
  const HeadOrder by_key(s.kv_heads, s, kPairRows, s.heads / s.kv_heads), by_query(s.heads, s, kPairRows);
  launch_kernel(key_gradient_kernel<kDim>, by_key.grid(multiprocessors), dim3(kPairThreads), T::kShared,
                stream, p, delta, by_key, qkv, d_o);
  launch_kernel(query_gradient_kernel<kDim>, by_query.grid(multiprocessors), dim3(kPairThreads), T::kShared,
                stream, p, delta, by_query, qkv, d_o);
}

}  // namespace switchyard::kernels::hopper
