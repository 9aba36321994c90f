// Grouped products of bf16 on Hopper: 128 x 256 of C per block. One warp keeps a ring of four stages filled
// through the copy engine, across the borders of tiles; two warpgroups multiply, 64 x 256 each. n and k are
// multiples of 8.
#pragma once

#include "kernels/cuda/group_tiles.cuh"
#include "kernels/cuda/grouped_mma.cuh"
#include "kernels/cuda/prefetch.cuh"
#include "kernels/cuda/swiglu.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace switchyard::kernels::hopper {

constexpr int kDepth = 64, kStages = 4, kConsumers = 2;
constexpr int kThreads = 128 * (kConsumers + 1);
// 64 x 64 elements: what one 128-byte swizzled column holds.
constexpr int kBlockBytes = 64 * kDepth * sizeof(BF16);
constexpr int kBytesA = kTileM / 64 * kBlockBytes, kBytesB = kTileN / 64 * kBlockBytes;
constexpr int kStageBytes = kBytesA + kBytesB;
constexpr size_t kShared = kStages * (kStageBytes + 2 * sizeof(uint64_t));

// The place in the ring, and how often it went round.
struct Turn {
  int stage = 0, parity = 0;
  __device__ void next() {
    stage = (stage + 1) % kStages;
    parity ^= stage == 0;
  }
};

struct Ring {
  unsigned char* data;
  uint64_t *full, *empty;  // [kStages]: filled by the copy engine; emptied by both consumers
  __device__ unsigned char* a(int stage) const { return data + stage * kStageBytes; }
  __device__ unsigned char* b(int stage) const { return a(stage) + kBytesA; }
};

// A tile of gate and up has half its columns in each: from this one on.
__device__ inline int column_of_halves(const GroupTile& t) { return t.n0 / 2; }

// Starts the copies of one step. An operand that is contiguous along the reduction comes as boxes of 128
// rows, another as blocks of 64 columns.
template <Form kForm, Ending kEnding>
__device__ void fill(const Ring& ring, int stage, const CUtensorMap* a, const CUtensorMap* b,
                     const GroupTile& t, int n, int depth) {
  uint64_t* full = &ring.full[stage];
  const int begin = static_cast<int>(t.begin);
  arrive_expecting(full, kStageBytes);
  if constexpr (kForm == Form::kWeight) {
    for (int i = 0; i < kTileM / 64; ++i) {
      copy_box(ring.a(stage) + i * kBlockBytes, a, full, t.m0 + 64 * i, begin + depth, 0);
    }
  } else {
    copy_box(ring.a(stage), a, full, depth, begin + t.m0, 0);
  }
  if constexpr (kForm == Form::kForward) {
    const int first = kEnding == Ending::kGate ? column_of_halves(t) : t.n0,
              second = first + (kEnding == Ending::kGate ? n / 2 : kTileN / 2);
    copy_box(ring.b(stage), b, full, depth, first, t.group);
    copy_box(ring.b(stage) + kBytesB / 2, b, full, depth, second, t.group);
  } else {
    const int row = kForm == Form::kWeight ? begin + depth : depth,
              group = kForm == Form::kWeight ? 0 : t.group;
    for (int i = 0; i < kTileN / 64; ++i) {
      copy_box(ring.b(stage) + i * kBlockBytes, b, full, t.n0 + 64 * i, row, group);
    }
  }
}

// The rows of other groups (or of none) that came along in the last step of a ragged reduction become zero.
__device__ inline void clear_tail(unsigned char* stage, int rows, int thread) {
  constexpr int kRowBytes = 128, kBlocks = kStageBytes / kBlockBytes;
  const int chunks = (kDepth - rows) * kRowBytes / 16;  // per block, at its end
  for (int e = thread; e < chunks * kBlocks; e += 128 * kConsumers) {
    unsigned char* block = stage + e / chunks * kBlockBytes;
    *reinterpret_cast<uint4*>(block + rows * kRowBytes + e % chunks * 16) = uint4{0, 0, 0, 0};
  }
  fence_writes();
  meet(1, 128 * kConsumers);
}

template <Form kForm>
__device__ void multiply_stage(float (&c)[kTileN / 8][4], const unsigned char* a, const unsigned char* b,
                               bool add) {
  constexpr bool kTransposeA = kForm == Form::kWeight, kTransposeB = kForm != Form::kForward;
  // 16 elements of the reduction further: 32 bytes along a row, or 16 rows of 128 bytes
  constexpr int kStepA = kTransposeA ? 2048 : 32, kStepB = kTransposeB ? 2048 : 32;
  fence_accumulators();
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    multiply_add<kTransposeA, kTransposeB>(c, describe(a + step * kStepA, kBlockBytes),
                                           describe(b + step * kStepB, kBlockBytes), step > 0 || add);
  }
  commit();
}

// Lane q of the four that share a row holds columns 2q, 2q + 1 of each block of eight. Neighbours trade
// blocks, so that everyone writes 16 bytes and the four together 64: columns 16 `pair` + wide_column() + {0
// .. 3}.
__device__ inline int wide_column() { return threadIdx.x % 2 * 8 + threadIdx.x % 4 / 2 * 4; }
__device__ inline float4 trade(const float (&c)[kTileN / 8][4], int pair, int half) {
  const bool odd = threadIdx.x % 2;
  const float(&even_block)[4] = c[2 * pair];
  const float(&odd_block)[4] = c[2 * pair + 1];
  const int i = 2 * half;
  const float x = __shfl_xor_sync(0xffffffffu, odd ? even_block[i] : odd_block[i], 1),
              y = __shfl_xor_sync(0xffffffffu, odd ? even_block[i + 1] : odd_block[i + 1], 1);
  return odd ? float4{x, y, odd_block[i], odd_block[i + 1]} : float4{even_block[i], even_block[i + 1], x, y};
}

// Eight neighbours in a row, 16 bytes.
template <class C>
struct Eight {
  uint4 word;
  __device__ void store(C* to) const { *reinterpret_cast<uint4*>(to) = word; }
};

__device__ inline void widen(const Eight<BF16>& x, float (&out)[8]) {
  const uint32_t words[] = {x.word.x, x.word.y, x.word.z, x.word.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ inline Eight<BF16> narrow(const float (&x)[8]) {
  return {
      uint4{pack<BF16>(x[0], x[1]), pack<BF16>(x[2], x[3]), pack<BF16>(x[4], x[5]), pack<BF16>(x[6], x[7])}};
}
__device__ inline Eight<BF16> swiglu(const Eight<BF16>& gate, const Eight<BF16>& up) {
  float g[8], u[8];
  widen(gate, g);
  widen(up, u);
#pragma unroll
  for (int j = 0; j < 8; ++j) g[j] = swiglu_of<BF16>(g[j], u[j]);
  return narrow(g);
}

// A warp's rows of a tile of bf16 or float16, rounded: they go to memory while the next tile is computed, a
// part of them in each step, so that the tensor cores do not wait for it. A lane holds pairs of columns of
// two rows, 8 apart, and writes 16 bytes of them: of every four blocks of eight columns, lane q of the four
// that share a row gathers block q.
template <Ending kEnding, class C>
struct Leaving {
  static constexpr int kParts = 8;  // of 32 columns; with kGate, of 32 columns of both halves of one row
  uint32_t words[2][kTileN / 8] = {};
  int64_t row = 0;
  int column = 0, columns[2] = {};  // the first that the lane writes; left from there on, none without a row
  int next = kParts;                // part to write

  __device__ void take(const GroupedProblem<BF16, C>& p, const GroupTile& t, const float (&c)[kTileN / 8][4],
                       int m) {
    const int row_of_group = t.m0 + m + threadIdx.x % 32 / 4, n = kEnding == Ending::kGate ? p.n / 2 : p.n;
    row = t.begin + row_of_group;
    column = (kEnding == Ending::kGate ? column_of_halves(t) : t.n0) + threadIdx.x % 4 * 8;
    next = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      columns[half] = row_of_group + 8 * half < t.rows ? n - column : 0;
#pragma unroll
      for (int j = 0; j < kTileN / 8; ++j) words[half][j] = pack<C>(c[j][2 * half], c[j][2 * half + 1]);
    }
  }

  __device__ Eight<C> gather(int half, int part) const {
    const bool odd = threadIdx.x % 2, upper = threadIdx.x % 4 / 2;
    // Of blocks q % 2 and 2 + q % 2: the words of the lower and the upper neighbour.
    uint32_t low[2], high[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t even_word = words[half][4 * part + 2 * i], odd_word = words[half][4 * part + 2 * i + 1],
                     word = __shfl_xor_sync(0xffffffffu, odd ? even_word : odd_word, 1);
      low[i] = odd ? word : even_word;
      high[i] = odd ? odd_word : word;
    }
    const uint32_t x = __shfl_xor_sync(0xffffffffu, upper ? low[0] : low[1], 2),
                   y = __shfl_xor_sync(0xffffffffu, upper ? high[0] : high[1], 2);
    return {upper ? uint4{x, y, low[1], high[1]} : uint4{low[0], high[0], x, y}};
  }

  __device__ void store(const GroupedProblem<BF16, C>& p, int part) const {
    if constexpr (kEnding == Ending::kGate) {
      const int half = part % 2, first = part / 2, width = p.n / 2;
      const Eight<C> gate = gather(half, first), up = gather(half, kParts / 2 + first);
      if (32 * first >= columns[half]) return;
      const int64_t at = (row + 8 * half) * width + column + 32 * first;
      C* gate_up = p.c + at + (row + 8 * half) * width;
      gate.store(gate_up);
      up.store(gate_up + width);
      swiglu(gate, up).store(p.gated + at);
    } else {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Eight<C> c = gather(half, part);
        if (32 * part < columns[half]) c.store(p.c + (row + 8 * half) * p.c_stride() + column + 32 * part);
      }
    }
  }
  __device__ void store_next(const GroupedProblem<BF16, C>& p) {
    switch (next++) {  // registers have no addresses
      case 0: return store(p, 0);
      case 1: return store(p, 1);
      case 2: return store(p, 2);
      case 3: return store(p, 3);
      case 4: return store(p, 4);
      case 5: return store(p, 5);
      case 6: return store(p, 6);
      case 7: return store(p, 7);
    }
  }
  __device__ void store_all(const GroupedProblem<BF16, C>& p) {
    while (next < kParts) store_next(p);
  }
};

// Float32 has no room for that: a tile is written, or added to what is there, before the next is begun. Old
// values are loaded two batches ahead: one after the other, their latencies would take longer than the
// product.
struct Adding {
  static constexpr int kPairs = 8, kBatches = 4;  // of 16 columns of one of a lane's two rows
  float4 old[2][kPairs] = {};
  float* out = nullptr;
  int64_t eight_rows = 0;
  int columns[2] = {};
  bool adds = false;

  __device__ void expect(const TileView<BF16, float>& v, int m, bool accumulate) {
    const int row = m + threadIdx.x % 32 / 4, column = wide_column();
    out = v.c + row * v.ldc + column;
    eight_rows = 8 * v.ldc;
    adds = accumulate;
#pragma unroll
    for (int half = 0; half < 2; ++half) columns[half] = row + 8 * half < v.m ? v.n - column : 0;
    load(0);
    load(1);
  }
  __device__ static int column(int batch, int pair) { return 16 * (batch % 2 * kPairs + pair); }
  __device__ bool has(int batch, int pair) const { return column(batch, pair) < columns[batch / 2]; }
  __device__ float4* at(int batch, int pair) const {
    __builtin_assume(__isGlobal(out));
    return reinterpret_cast<float4*>(out + batch / 2 * eight_rows + column(batch, pair));
  }
  __device__ void load(int batch) {
    if (!adds) return;
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair)
      if (has(batch, pair)) old[batch % 2][pair] = *at(batch, pair);
  }
  __device__ void store(const float (&c)[kTileN / 8][4]) {
#pragma unroll
    for (int batch = 0; batch < kBatches; ++batch) {
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const float4 sum = trade(c, batch % 2 * kPairs + pair, batch / 2), before = old[batch % 2][pair];
        if (has(batch, pair)) {
          *at(batch, pair) =
              adds ? float4{before.x + sum.x, before.y + sum.y, before.z + sum.z, before.w + sum.w} : sum;
        }
      }
      if (batch + 2 < kBatches) load(batch + 2);
    }
  }
};

// By a warp: the tile of C is on its way into the L2 cache while the product is computed. Line by line: the
// copy engine, which could take rows, would keep the next steps waiting.
template <class C>
__device__ void fetch_ahead(const TileView<BF16, C>& v) {
  const int lines = ceil_div(min(kTileN, v.n) * sizeof(C), kCacheLine);
  for (int e = threadIdx.x; e < min(kTileM, v.m) * lines; e += 32) {
    const C* row = v.c + e / lines * v.ldc;
    prefetch_line(reinterpret_cast<const char*>(row) + e % lines * kCacheLine);
  }
}

// By one warp.
template <Form kForm, Ending kEnding, class C>
__device__ void produce(const GroupedProblem<BF16, C>& p, const Ring& ring, const int* starts,
                        const CUtensorMap* a, const CUtensorMap* b) {
  Turn turn;
  for (int tile = blockIdx.x; tile < starts[p.groups]; tile += gridDim.x) {
    const GroupTile t = group_tile<kForm>(starts, p, tile, kTileM, kTileN);
    const int k = kForm == Form::kWeight ? t.rows : p.k, lane = threadIdx.x;
    for (int depth = 0; depth < k; depth += kDepth, turn.next()) {
      wait(&ring.empty[turn.stage], turn.parity ^ 1);  // passes at once in the first round
      if (lane == 0) fill<kForm, kEnding>(ring, turn.stage, a, b, t, p.n, depth);
      __syncwarp();  // a lane that falls two rounds behind would misread the parity
      if (depth == 0 && p.accumulate) fetch_ahead(view<kForm>(p, t));
    }
  }
}

// A group without rows has a product of no steps, whose sum has to begin at zero.
template <Form kForm>
constexpr bool kMayBeEmpty = kForm == Form::kWeight;

// A warpgroup that multiplies: half of every tile's rows.
template <Form kForm>
struct Consumer {
  const Ring& ring;
  const int thread, index;  // among the consumers' threads; which consumer
  Turn turn;
  int previous = -1;  // the stage that the products under way read

  __device__ void release() {
    if (thread % 128 == 0 && previous >= 0) arrive(&ring.empty[previous]);
  }
  // Starts the next step's products, of `depth` elements, and ends those of the step before.
  template <class F>
  __device__ void step(float (&c)[kTileN / 8][4], int depth, F&& meanwhile) {
    wait(&ring.full[turn.stage], turn.parity);
    if (kForm == Form::kWeight && depth < kDepth) clear_tail(ring.a(turn.stage), depth, thread);
    multiply_stage<kForm>(c, ring.a(turn.stage) + index * (kBytesA / kConsumers), ring.b(turn.stage),
                          kMayBeEmpty<kForm> || previous >= 0);
    meanwhile();
    wait_products<1>();
    release();
    previous = turn.stage;
    turn.next();
  }
  // Ends all.
  __device__ void finish(float (&c)[kTileN / 8][4]) {
    wait_products<0>();
    hold(c);
    release();
    previous = -1;
  }
};

__device__ inline void clear(float (&c)[kTileN / 8][4]) {
#pragma unroll
  for (auto& block : c)
#pragma unroll
    for (float& x : block) x = 0;
}

template <Form kForm, Ending kEnding, class C>
__device__ void consume(const GroupedProblem<BF16, C>& p, const Ring& ring, const int* starts) {
  const int thread = threadIdx.x - 128, m = thread / 32 * 16, tiles = starts[p.groups];
  const auto tile_at = [&](int tile) {
    return tile < tiles ? group_tile<kForm>(starts, p, tile, kTileM, kTileN) : GroupTile{};
  };
  Consumer<kForm> consumer{ring, thread, thread / 128};
  [[maybe_unused]] Adding adding;
  [[maybe_unused]] Leaving<kEnding, std::conditional_t<std::is_same_v<C, float>, BF16, C>> leaving;
  float c[kTileN / 8][4] = {};
  GroupTile now, next = tile_at(blockIdx.x);
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    now = next;
    const int k = kForm == Form::kWeight ? now.rows : p.k;
    if constexpr (kMayBeEmpty<kForm>) clear(c);
    for (int depth = 0; depth < k; depth += kDepth) {
      consumer.step(c, k - depth, [&] {
        if constexpr (!std::is_same_v<C, float>) leaving.store_next(p);
      });
    }
    next = tile_at(tile + static_cast<int>(gridDim.x));  // while the last products are under way
    if constexpr (std::is_same_v<C, float>) {
      adding.expect(view<kForm>(p, now), m, p.accumulate);
      consumer.finish(c);
      adding.store(c);
    } else {
      consumer.finish(c);
      leaving.store_all(p);
      leaving.take(p, now, c, m);
    }
  }
  if constexpr (!std::is_same_v<C, float>) leaving.store_all(p);
}

template <Form kForm, Ending kEnding, class C>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_kernel(GroupedProblem<BF16, C> p, const __grid_constant__ CUtensorMap a,
                   const __grid_constant__ CUtensorMap b) {
#if SWITCHYARD_HOPPER
  // Nothing static: the stages begin the block's shared memory, at a multiple of 1024 bytes.
  uint64_t* full = reinterpret_cast<uint64_t*>(dynamic_shared() + kStages * kStageBytes);
  uint64_t* empty = full + kStages;
  const Ring ring{dynamic_shared(), full, empty};
  int* starts = reinterpret_cast<int*>(dynamic_shared() + kShared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(&full[stage], 1);
      init_barrier(&empty[stage], kConsumers);
    }
    fence_barriers();
  }
  count_tiles<kForm>(starts, p, kTileM, kTileN);
  __syncthreads();
  if (threadIdx.x < 128) {
    shrink_registers<40>();
    if (threadIdx.x < 32) produce<kForm, kEnding>(p, ring, starts, &a, &b);
  } else {
    grow_registers<232>();
    consume<kForm, kEnding>(p, ring, starts);
  }
#endif
}

// A tensor [outer, rows, columns] of bf16, cut into boxes of box_rows x 64.
CUtensorMap tensor_map(const BF16* x, int64_t columns, int64_t rows, int64_t outer, int box_rows);

template <Form kForm, Ending kEnding = Ending::kStore, class C>
void launch(const GroupedProblem<BF16, C>& p, int multiprocessors, cudaStream_t stream) {
  const CUtensorMap a = kForm == Form::kWeight ? tensor_map(p.a, p.m, p.rows, 1, kDepth)
                                               : tensor_map(p.a, p.k, p.rows, 1, kTileM);
  const CUtensorMap b = kForm == Form::kWeight ? tensor_map(p.b, p.n, p.rows, 1, kDepth)
                        : kForm == Form::kData ? tensor_map(p.b, p.n, p.k, p.groups, kDepth)
                                               : tensor_map(p.b, p.k, p.n, p.groups, kTileN / 2);
  launch_kernel(grouped_kernel<kForm, kEnding, C>, dim3(multiprocessors), dim3(kThreads),
                kShared + tile_counts_bytes(p.groups), stream, p, a, b);
}

}  // namespace switchyard::kernels::hopper
