// Grouped products of bf16 on Hopper: 128 x 256 of C per block. One warp keeps a ring of four stages filled
// through the copy engine, across the borders of tiles; two warpgroups multiply, 64 x 256 each. n and k are
// multiples of 8.
#pragma once

#include "kernels/cuda/group_tiles.cuh"
#include "kernels/cuda/grouped_mma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace switchyard::kernels::hopper {

constexpr int kTileM = 128, kTileN = 256, kDepth = 64, kStages = 4, kConsumers = 2;
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

// Starts the copies of one step. An operand that is contiguous along the reduction comes as one box of all
// its rows, another as blocks of 64 columns.
template <Form kForm>
__device__ void fill(const Ring& ring, int stage, const CUtensorMap* a, const CUtensorMap* b,
                     const GroupTile& t, int depth) {
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
    copy_box(ring.b(stage), b, full, depth, t.n0, t.group);
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
__device__ void multiply_stage(float (&c)[kTileN / 8][4], const unsigned char* a, const unsigned char* b) {
  constexpr bool kTransposeA = kForm == Form::kWeight, kTransposeB = kForm != Form::kForward;
  // 16 elements of the reduction further: 32 bytes along a row, or 16 rows of 128 bytes
  constexpr int kStepA = kTransposeA ? 2048 : 32, kStepB = kTransposeB ? 2048 : 32;
  fence_accumulators();
#pragma unroll
  for (int step = 0; step < kDepth / 16; ++step) {
    multiply_add<kTransposeA, kTransposeB>(c, describe(a + step * kStepA, kBlockBytes),
                                           describe(b + step * kStepB, kBlockBytes));
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

// Old values are loaded kBatch at a time before the first is used: one after the other, their latencies would
// take longer than the product.
__device__ inline void store_row(float* out, const float (&c)[kTileN / 8][4], int half, int columns,
                                 bool accumulate) {
  constexpr int kBatch = 8;
  out += wide_column();
  columns -= wide_column();
#pragma unroll
  for (int first = 0; first < kTileN / 16; first += kBatch) {
    float4 old[kBatch] = {};
    if (accumulate) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int column = 16 * (first + i);
        if (column < columns) old[i] = *reinterpret_cast<const float4*>(out + column);
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int column = 16 * (first + i);
      const float4 sum = trade(c, first + i, half);
      if (column < columns) {
        *reinterpret_cast<float4*>(out + column) =
            float4{old[i].x + sum.x, old[i].y + sum.y, old[i].z + sum.z, old[i].w + sum.w};
      }
    }
  }
}

// A block of eight columns is 16 bytes of bf16 or float16: of every four blocks, lane q gathers block q.
template <class C>
__device__ void store_row(C* out, const float (&c)[kTileN / 8][4], int half, int columns, bool) {
  const int q = threadIdx.x % 4;
  const bool odd = q % 2, upper = q / 2;
#pragma unroll
  for (int first = 0; first < kTileN / 8; first += 4) {
    // Of blocks q % 2 and 2 + q % 2: the words of the lower and the upper neighbour.
    uint32_t low[2], high[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float(&even_block)[4] = c[first + 2 * i];
      const float(&odd_block)[4] = c[first + 2 * i + 1];
      const uint32_t even_word = pack<C>(even_block[2 * half], even_block[2 * half + 1]),
                     odd_word = pack<C>(odd_block[2 * half], odd_block[2 * half + 1]),
                     word = __shfl_xor_sync(0xffffffffu, odd ? even_word : odd_word, 1);
      low[i] = odd ? word : even_word;
      high[i] = odd ? odd_word : word;
    }
    const uint32_t x = __shfl_xor_sync(0xffffffffu, upper ? low[0] : low[1], 2),
                   y = __shfl_xor_sync(0xffffffffu, upper ? high[0] : high[1], 2);
    const int column = 8 * (first + q);
    if (column < columns) {
      *reinterpret_cast<uint4*>(out + column) =
          upper ? uint4{x, y, low[1], high[1]} : uint4{low[0], high[0], x, y};
    }
  }
}

template <class C>
__device__ void store_rows(const TileView<BF16, C>& v, const float (&c)[kTileN / 8][4], int m,
                           bool accumulate) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = m + 8 * half + threadIdx.x % 32 / 4;
    store_row(v.c + row * v.ldc, c, half, row < v.m ? v.n : 0, accumulate);  // whole warps: lanes trade
  }
}

// The tile of C is on its way into the L2 cache while the product is computed.
template <class C>
__device__ void fetch_ahead(const TileView<BF16, C>& v, int lane) {
  const int bytes = min(kTileN, v.n) * static_cast<int>(sizeof(C));
  for (int row = lane; row < min(kTileM, v.m); row += 32) prefetch(v.c + row * v.ldc, bytes);
}

// By one warp.
template <Form kForm, class C>
__device__ void produce(const GroupedProblem<BF16, C>& p, const Ring& ring, const int* starts,
                        const CUtensorMap* a, const CUtensorMap* b) {
  Turn turn;
  for (int tile = blockIdx.x; tile < starts[p.groups]; tile += gridDim.x) {
    const GroupTile t = group_tile<kForm>(starts, p, tile, kTileM, kTileN);
    const int k = kForm == Form::kWeight ? t.rows : p.k, lane = threadIdx.x;
    if (p.accumulate) fetch_ahead(view<kForm>(p, t), lane);
    for (int depth = 0; depth < k; depth += kDepth, turn.next()) {
      wait(&ring.empty[turn.stage], turn.parity ^ 1);  // passes at once in the first round
      if (lane == 0) fill<kForm>(ring, turn.stage, a, b, t, depth);
      __syncwarp();  // a lane that falls two rounds behind would misread the parity
    }
  }
}

template <Form kForm, class C>
__device__ void consume(const GroupedProblem<BF16, C>& p, const Ring& ring, const int* starts) {
  constexpr int kConsumerA = kBytesA / kConsumers;
  const int thread = threadIdx.x - 128, consumer = thread / 128, m = thread / 32 * 16;
  const bool leader = thread % 128 == 0;
  Turn turn;
  for (int tile = blockIdx.x; tile < starts[p.groups]; tile += gridDim.x) {
    const auto v = view<kForm>(p, group_tile<kForm>(starts, p, tile, kTileM, kTileN));
    float c[kTileN / 8][4] = {};
    int previous = -1;
    for (int depth = 0; depth < v.k; depth += kDepth, turn.next()) {
      wait(&ring.full[turn.stage], turn.parity);
      if (kForm == Form::kWeight && v.k - depth < kDepth) clear_tail(ring.a(turn.stage), v.k - depth, thread);
      multiply_stage<kForm>(c, ring.a(turn.stage) + consumer * kConsumerA, ring.b(turn.stage));
      wait_products<1>();  // the step before is done with its stage
      if (leader && previous >= 0) arrive(&ring.empty[previous]);
      previous = turn.stage;
    }
    wait_products<0>();
    hold(c);
    if (leader && previous >= 0) arrive(&ring.empty[previous]);
    store_rows(v, c, m, p.accumulate);
  }
}

template <Form kForm, class C>
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
    if (threadIdx.x < 32) produce<kForm>(p, ring, starts, &a, &b);
  } else {
    grow_registers<232>();
    consume<kForm>(p, ring, starts);
  }
#endif
}

// A tensor [outer, rows, columns] of bf16, cut into boxes of box_rows x 64.
CUtensorMap tensor_map(const BF16* x, int64_t columns, int64_t rows, int64_t outer, int box_rows);

template <Form kForm, class C>
void launch(const GroupedProblem<BF16, C>& p, int multiprocessors, cudaStream_t stream) {
  const CUtensorMap a = kForm == Form::kWeight ? tensor_map(p.a, p.m, p.rows, 1, kDepth)
                                               : tensor_map(p.a, p.k, p.rows, 1, kTileM);
  const CUtensorMap b = kForm == Form::kWeight ? tensor_map(p.b, p.n, p.rows, 1, kDepth)
                        : kForm == Form::kData ? tensor_map(p.b, p.n, p.k, p.groups, kDepth)
                                               : tensor_map(p.b, p.k, p.n, p.groups, kTileN);
  launch_kernel(grouped_kernel<kForm, C>, dim3(multiprocessors), dim3(kThreads),
                kShared + tile_counts_bytes(p.groups), stream, p, a, b);
}

}  // namespace switchyard::kernels::hopper
