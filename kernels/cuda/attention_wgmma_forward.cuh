// FlashAttention's forward pass on Hopper, after FlashAttention-3 (Shah et al., arXiv 2407.08608): one warp
// brings keys and values in steps of 128 through the copy engine; each warpgroup owns 64 queries and computes
// the next scores and the last step's output on the tensor cores while it exponentiates the scores between.
#pragma once

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace switchyard::kernels::hopper {

constexpr int kKeys = 128, kKeyStages = 2;
constexpr int kColumnBytes = 128;  // a swizzled column is 64 elements of every row of a tile

template <int kDim>
struct AttentionTiles {
  // A narrow head leaves registers for a third warpgroup of queries.
  static constexpr int kConsumers = kDim == 64 ? 3 : 2, kRows = 64 * kConsumers, kThreads = 128 + 2 * kRows;
  static constexpr int kProducerRegisters = kConsumers == 3 ? 32 : 40,
                       kConsumerRegisters = kConsumers == 3 ? 160 : 232;
  static constexpr int kQueryBytes = 64 * kDim * sizeof(BF16);  // of one consumer
  static constexpr int kKeyBytes = kKeys * kDim * sizeof(BF16);
  static constexpr int kBarriers = 1 + 4 * kKeyStages;
  static constexpr size_t kShared =
      kConsumers * kQueryBytes + 2 * kKeyStages * kKeyBytes + kBarriers * sizeof(uint64_t);

  unsigned char* data;  // queries | keys of each stage | values of each stage | barriers

  __device__ unsigned char* query(int consumer) const { return data + consumer * kQueryBytes; }
  __device__ unsigned char* key(int step) const { return query(kConsumers) + step % kKeyStages * kKeyBytes; }
  __device__ unsigned char* value(int step) const { return key(step) + kKeyStages * kKeyBytes; }
  __device__ uint64_t* barriers() const {
    return reinterpret_cast<uint64_t*>(query(kConsumers) + 2 * kKeyStages * kKeyBytes);
  }
  __device__ uint64_t* query_full() const { return barriers(); }
  __device__ uint64_t* key_full(int step) const { return barriers() + 1 + step % kKeyStages; }
  __device__ uint64_t* key_empty(int step) const { return key_full(step) + kKeyStages; }
  __device__ uint64_t* value_full(int step) const { return key_full(step) + 2 * kKeyStages; }
  __device__ uint64_t* value_empty(int step) const { return key_full(step) + 3 * kKeyStages; }
  __device__ static int parity(int step) { return step / kKeyStages % 2; }

  __device__ void init() const {
    init_barrier(query_full(), 1);
    for (int stage = 0; stage < kKeyStages; ++stage) {
      init_barrier(key_full(stage), 1);
      init_barrier(value_full(stage), 1);
      init_barrier(key_empty(stage), kConsumers);
      init_barrier(value_empty(stage), kConsumers);
    }
    fence_barriers();
  }
};

// A head's tile: its columns in blocks of 64.
template <int kDim>
__device__ void copy_head(unsigned char* tile, const CUtensorMap* map, uint64_t* full, int column, int rows,
                          int row, int batch) {
  for (int i = 0; i < kDim / 64; ++i) {
    copy_box(tile + i * rows * kColumnBytes, map, full, column + 64 * i, row, batch);
  }
}

// A warp's rows of scores: lane l holds rows l/4 and l/4 + 8.
using Scores = float[kKeys / 8][4];
using Weights = uint32_t[kKeys / 16][4];  // rounded to bf16, as multiply_columns wants them

struct RunningSoftmax {
  float scale;  // of a score, in powers of two
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  // Scores become weights exp2(scale * (s - largest)); what was summed before is to shrink by `shrink`.
  __device__ void update(Scores& s, float (&shrink)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float next = largest[half];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) next = fmaxf(next, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
      next = flash::row_max(next);
      const float base = next == -INFINITY ? 0 : next * scale;  // no key seen yet
      shrink[half] = power_of_two(largest[half] * scale - base);
      largest[half] = next;
      float added = 0;
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[j][i] = power_of_two(s[j][i] * scale - base);
          added += s[j][i];
        }
      }
      sum[half] = sum[half] * shrink[half] + added;
    }
  }
};

__device__ inline void mask_scores(Scores& s, int query0, int key0, int seq, const int32_t* document) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = query0 + i / 2 * 8 + lane / 4, key = key0 + 8 * j + lane % 4 * 2 + i % 2;
      if (!flash::visible(query, key, seq, document)) s[j][i] = -INFINITY;
    }
  }
}

template <int kDim>
__device__ void start_scores(Scores& s, const unsigned char* query, const unsigned char* key) {
  fence_accumulators();
  multiply_rows<false>(s, describe(query, 0), describe(key, 0));
#pragma unroll
  for (int step = 1; step < kDim / 16; ++step) {
    const int block = step / 4, within = step % 4 * 32;
    multiply_rows<true>(s, describe(query + block * 64 * kColumnBytes + within, 0),
                        describe(key + block * kKeys * kColumnBytes + within, 0));
  }
  commit();
}

template <int kDim>
__device__ void start_output(float (&o)[kDim / 8][4], const Weights& weights, const unsigned char* value) {
  fence_accumulators();
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    multiply_columns(o, weights[step], describe(value + step * 16 * kColumnBytes, kKeys * kColumnBytes));
  }
  commit();
}

__device__ inline void round_weights(Weights& weights, const Scores& s) {
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&block)[4] = s[2 * step + i / 2];
      weights[step][i] = pack(block[i % 2 * 2], block[i % 2 * 2 + 1]);
    }
  }
}

template <int kBlocks>
__device__ void scale_rows(float (&o)[kBlocks][4], const float (&factor)[2]) {
#pragma unroll
  for (int j = 0; j < kBlocks; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) o[j][i] *= factor[i / 2];
  }
}

// A block's work: queries from row0 on of one head.
struct QueryBlock {
  int head, batch, row0;
  __device__ explicit QueryBlock(int rows)  // all heads' longest rows first
      : head(blockIdx.x), batch(blockIdx.y), row0(static_cast<int>(gridDim.z - 1 - blockIdx.z) * rows) {}
};

template <int kDim>
__device__ void bring(const AttentionTiles<kDim>& tiles, const AttentionShape& shape, const QueryBlock& block,
                      int steps, const CUtensorMap* queries, const CUtensorMap* keys) {
  using T = AttentionTiles<kDim>;
  const int heads = static_cast<int>(shape.heads), kv_heads = static_cast<int>(shape.kv_heads);
  const int key_column = (heads + block.head / (heads / kv_heads)) * kDim;
  arrive_expecting(tiles.query_full(), T::kConsumers * T::kQueryBytes);
  for (int c = 0; c < T::kConsumers; ++c) {
    copy_head<kDim>(tiles.query(c), queries, tiles.query_full(), block.head * kDim, 64, block.row0 + 64 * c,
                    block.batch);
  }
  for (int step = 0; step < steps; ++step) {
    wait(tiles.key_empty(step), T::parity(step) ^ 1);  // passes at once in the first round
    arrive_expecting(tiles.key_full(step), T::kKeyBytes);
    copy_head<kDim>(tiles.key(step), keys, tiles.key_full(step), key_column, kKeys, step * kKeys,
                    block.batch);
    wait(tiles.value_empty(step), T::parity(step) ^ 1);
    arrive_expecting(tiles.value_full(step), T::kKeyBytes);
    copy_head<kDim>(tiles.value(step), keys, tiles.value_full(step), key_column + kv_heads * kDim, kKeys,
                    step * kKeys, block.batch);
  }
}

template <int kDim>
__device__ void attend(const AttentionTiles<kDim>& tiles, const AttentionForward<BF16>& p,
                       const QueryBlock& block) {
  using T = AttentionTiles<kDim>;
  const AttentionShape& shape = p.shape;
  const int seq = static_cast<int>(shape.seq), thread = threadIdx.x - 128, consumer = thread / 128;
  const int first = block.row0 + 64 * consumer, row0 = first + thread % 128 / 32 * 16;
  // Steps past this warpgroup's last row are left out; nobody waits for their stages to be emptied.
  const int steps = (min(first + 64, seq) + kKeys - 1) / kKeys;
  const int32_t* document = p.document ? p.document + block.batch * shape.seq : nullptr;
  const bool leader = thread % 128 == 0;

  Scores s = {};
  Weights weights;
  float o[kDim / 8][4] = {}, shrink[2];
  RunningSoftmax softmax{shape.scale * flash::kLog2E};
  const auto weigh = [&](int step) {
    const int key0 = step * kKeys;
    if (document || key0 + kKeys - 1 > row0) mask_scores(s, row0, key0, seq, document);
    softmax.update(s, shrink);
  };
  wait(tiles.query_full(), 0);
  wait(tiles.key_full(0), 0);
  start_scores<kDim>(s, tiles.query(consumer), tiles.key(0));
  wait_products<0>();
  hold(s);
  if (leader) arrive(tiles.key_empty(0));
  weigh(0);
  round_weights(weights, s);
  for (int step = 1; step < steps; ++step) {
    wait(tiles.key_full(step), T::parity(step));
    start_scores<kDim>(s, tiles.query(consumer), tiles.key(step));
    wait(tiles.value_full(step - 1), T::parity(step - 1));
    start_output<kDim>(o, weights, tiles.value(step - 1));
    wait_products<1>();
    hold(s);
    if (leader) arrive(tiles.key_empty(step));
    weigh(step);
    wait_products<0>();
    hold(o);
    if (leader) arrive(tiles.value_empty(step - 1));
    scale_rows(o, shrink);
    round_weights(weights, s);
  }
  wait(tiles.value_full(steps - 1), T::parity(steps - 1));
  start_output<kDim>(o, weights, tiles.value(steps - 1));
  wait_products<0>();
  hold(o);

  const int64_t first_row = block.batch * shape.seq;
  float* lse = p.lse + (first_row * shape.heads + block.head * shape.seq);
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = flash::row_sum(softmax.sum[half]);
    const int row = row0 + 8 * half + thread % 32 / 4;
    if (thread % 4 == 0 && row < seq) lse[row] = softmax.largest[half] * shape.scale + logf(sum);
    factor[half] = 1 / sum;
  }
  scale_rows(o, factor);
  const flash::Rows<1, kDim>& rows = reinterpret_cast<const flash::Rows<1, kDim>&>(o);
  flash::store_rows<1, kDim>(p.o + (first_row * shape.heads + block.head) * kDim, shape.heads * kDim, rows,
                             row0, seq, 1);
}

template <int kDim>
__global__ void __launch_bounds__(AttentionTiles<kDim>::kThreads, 1)
    attention_kernel(AttentionForward<BF16> p, const __grid_constant__ CUtensorMap queries,
                     const __grid_constant__ CUtensorMap keys) {
#if SWITCHYARD_HOPPER
  using T = AttentionTiles<kDim>;
  const T tiles{dynamic_shared()};
  const QueryBlock block(T::kRows);
  if (threadIdx.x == 0) tiles.init();
  __syncthreads();
  if (threadIdx.x < 128) {
    shrink_registers<T::kProducerRegisters>();
    if (threadIdx.x == 0) {
      const int end = min(block.row0 + T::kRows, static_cast<int>(p.shape.seq));
      bring<kDim>(tiles, p.shape, block, (end + kKeys - 1) / kKeys, &queries, &keys);
    }
  } else {
    grow_registers<T::kConsumerRegisters>();
    attend<kDim>(tiles, p, block);
  }
#endif
}

CUtensorMap tensor_map(const BF16* x, int64_t columns, int64_t rows, int64_t outer, int box_rows);

template <int kDim>
void launch_attention(const AttentionForward<BF16>& p, cudaStream_t stream) {
  using T = AttentionTiles<kDim>;
  const AttentionShape& s = p.shape;
  const CUtensorMap queries = tensor_map(p.qkv, s.row(), s.seq, s.batch, 64),
                    keys = tensor_map(p.qkv, s.row(), s.seq, s.batch, kKeys);
  const dim3 grid(s.heads, s.batch, (s.seq + T::kRows - 1) / T::kRows);
  launch_kernel(attention_kernel<kDim>, grid, dim3(T::kThreads), T::kShared, stream, p, queries, keys);
}

}  // namespace switchyard::kernels::hopper
