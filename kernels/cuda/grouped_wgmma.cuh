// Grouped products of bf16 on Hopper: 128 x 256 of C per block. One warp keeps a ring of four stages filled
// through the copy engine, across the borders of tiles; two warpgroups multiply, 64 x 256 each. n and k are
// multiples of 8.
#pragma once

#include "kernels/cuda/group_tiles.cuh"
#include "kernels/cuda/grouped_wgmma_end.cuh"
#include "kernels/cuda/prefetch.cuh"
#include "kernels/cuda/row_cuts.cuh"
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

// The tiles that blocks take in turn: block b has b, b + gridDim.x, ...
template <Form kForm, Ending kEnding, class C>
struct Tiles {
  const GroupedProblem<BF16, C>& p;
  const int* starts;

  __device__ int count() const { return starts[p.groups]; }
  __device__ GroupTile operator[](int tile) const {
    return group_tile<kForm>(starts, p, tile, kTileM, kTileN);
  }
};
template <class C>
struct Tiles<Form::kWeight, Ending::kPart, C> {
  static_assert(RowCuts::kDepth == kDepth);
  RowCuts cuts;

  __device__ Tiles(const GroupedProblem<BF16, C>& p, const int*)
      : cuts(p.m, p.n, p.rows, static_cast<int>(gridDim.x)) {}
  __device__ int count() const { return cuts.most_pieces() * static_cast<int>(gridDim.x); }
  __device__ GroupTile operator[](int tile) const {
    return cuts.piece(static_cast<int>(blockIdx.x), tile / static_cast<int>(gridDim.x));
  }
};

// By one warp.
template <Form kForm, Ending kEnding, class C>
__device__ void produce(const GroupedProblem<BF16, C>& p, const Ring& ring, const int* starts,
                        const CUtensorMap* a, const CUtensorMap* b) {
  Turn turn;
  const Tiles<kForm, kEnding, C> tiles(p, starts);
  for (int tile = blockIdx.x; tile < tiles.count(); tile += gridDim.x) {
    const GroupTile t = tiles[tile];
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
  const int thread = threadIdx.x - 128, m = thread / 32 * 16;
  const Tiles<kForm, kEnding, C> tiles(p, starts);
  const auto tile_at = [&](int tile) { return tile < tiles.count() ? tiles[tile] : GroupTile{}; };
  Consumer<kForm> consumer{ring, thread, thread / 128};
  TileEnd<kEnding, C> end;
  float c[kTileN / 8][4] = {};
  GroupTile now, next = tile_at(blockIdx.x);
  for (int tile = blockIdx.x; tile < tiles.count(); tile += gridDim.x) {
    now = next;
    const int k = kForm == Form::kWeight ? now.rows : p.k;
    if constexpr (kMayBeEmpty<kForm>) clear(c);
    for (int depth = 0; depth < k; depth += kDepth) consumer.step(c, k - depth, [&] { end.store_next(p); });
    next = tile_at(tile + static_cast<int>(gridDim.x));  // while the last products are under way
    end.expect(p, now, m);
    consumer.finish(c);
    end.take(p, now, c, m);
  }
  end.store_rest(p);
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
