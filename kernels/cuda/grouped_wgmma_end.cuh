// How a tile of grouped_wgmma.cuh leaves the accumulators for memory.
#pragma once

#include "kernels/cuda/group_tiles.cuh"
#include "kernels/cuda/grouped_mma.cuh"
#include "kernels/cuda/row_cuts.cuh"
#include "kernels/cuda/swiglu.cuh"

namespace switchyard::kernels::hopper {

// A tile of gate and up has half its columns in each: from this one on.
__device__ inline int column_of_halves(const GroupTile& t) { return t.n0 / 2; }

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

// What a warp does with its 16 rows of a tile, of which row `m` of the tile is the first:
//   expect       begins to load what the end will need, while the last products are under way
//   take         has the sums
//   store_next   stores a part of the tile before, in each step of the next one; store_rest all that is left
//
// Of bf16 and float16, rounded, the rows go to memory while the next tile is computed, a
// part of them in each step, so that the tensor cores do not wait for it. A lane holds pairs of columns of
// two rows, 8 apart, and writes 16 bytes of them: of every four blocks of eight columns, lane q of the four
// that share a row gathers block q.
template <Ending kEnding, class C>
struct TileEnd {
  static constexpr int kParts = 8;  // of 32 columns; with kGate, of 32 columns of both halves of one row
  uint32_t words[2][kTileN / 8] = {};
  int64_t row = 0;
  int column = 0, columns[2] = {};  // the first that the lane writes; left from there on, none without a row
  int next = kParts;                // part to write

  __device__ void expect(const GroupedProblem<BF16, C>&, const GroupTile&, int) const {}
  __device__ void take(const GroupedProblem<BF16, C>& p, const GroupTile& t, const float (&c)[kTileN / 8][4],
                       int m) {
    store_rest(p);
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
  __device__ void store_rest(const GroupedProblem<BF16, C>& p) {
    while (next < kParts) store_next(p);
  }
};

// Float32 has no room for that: a tile is written, or added to what is there, before the next is begun. Old
// values are loaded two batches ahead: one after the other, their latencies would take longer than the
// product.
template <>
struct TileEnd<Ending::kStore, float> {
  static constexpr int kPairs = 8, kBatches = 4;  // of 16 columns of one of a lane's two rows
  float4 old[2][kPairs] = {};
  float* out = nullptr;
  int64_t eight_rows = 0;
  int columns[2] = {};
  bool adds = false;

  __device__ void expect(const GroupedProblem<BF16, float>& p, const GroupTile& t, int m) {
    const auto v = view<Form::kWeight>(p, t);
    const int row = m + threadIdx.x % 32 / 4, column = wide_column();
    out = v.c + row * v.ldc + column;
    eight_rows = 8 * v.ldc;
    adds = p.accumulate;
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
  __device__ void take(const GroupedProblem<BF16, float>&, const GroupTile&, const float (&c)[kTileN / 8][4],
                       int) {
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
  __device__ void store_next(const GroupedProblem<BF16, float>&) const {}
  __device__ void store_rest(const GroupedProblem<BF16, float>&) const {}
};

// A part is a whole tile, whatever of it exists.
template <>
struct TileEnd<Ending::kPart, float> {
  __device__ void expect(const GroupedProblem<BF16, float>&, const GroupTile&, int) const {}
  __device__ void take(const GroupedProblem<BF16, float>& p, const GroupTile& t,
                       const float (&c)[kTileN / 8][4], int m) const {
    if (t.rows == 0) return;
    const int row = m + threadIdx.x % 32 / 4;
    float* out = p.c + t.group * RowCuts::kPartElements + row * kTileN + wide_column();
    __builtin_assume(__isGlobal(out));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int pair = 0; pair < kTileN / 16; ++pair)
        *reinterpret_cast<float4*>(out + half * 8 * kTileN + 16 * pair) = trade(c, pair, half);
    }
  }
  __device__ void store_next(const GroupedProblem<BF16, float>&) const {}
  __device__ void store_rest(const GroupedProblem<BF16, float>&) const {}
};

}  // namespace switchyard::kernels::hopper
