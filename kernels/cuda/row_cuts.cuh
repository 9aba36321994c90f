// Weight gradients of few tiles and many rows. Fewer tiles than multiprocessors would leave some of them
// idle, so rows are cut, blocks compute parts of tiles, and the parts are added in the order of their rows:
// the same bits every time. Every tile is cut alike, into as many parts as there are blocks for, and the
// blocks of a cut walk through the same rows side by side, which the L2 cache then serves to all of them.
// Blocks that are left over divide the last steps of all tiles among themselves ("Stream-K", Osama et al.
// 2023, arXiv:2301.03598).
#pragma once

#include <limits>

#include "kernels/cuda/group_tiles.cuh"

namespace switchyard::kernels::hopper {

// dW is [m, n]; a step is kDepth rows.
struct RowCuts {
  static constexpr int kDepth = 64;
  static constexpr int64_t kPartElements = int64_t{kTileM} * kTileN;

  int64_t rows;
  int tiles_n, tiles, steps;  // steps of a tile
  int cuts;                   // of every tile, a block each
  int spare;                  // blocks that share the last `rest` steps of every tile
  int rest;

  __host__ __device__ RowCuts(int m, int n, int64_t rows, int blocks)
      : rows(rows),
        tiles_n(ceil_div(n, kTileN)),
        tiles(ceil_div(m, kTileM) * tiles_n),
        steps(ceil_div(rows, kDepth)),
        cuts(blocks / tiles),
        spare(blocks % tiles),
        rest(steps * spare / blocks) {
    constexpr int kMostTilesEach = 4;  // more tiles than that in turn take longer than they help
    if (rest == 0 || spare * kMostTilesEach < tiles) spare = rest = 0;
  }

  // Is there a part for each block, and none without rows? Steps times blocks times blocks is an int.
  static bool fits(int64_t m, int64_t n, int64_t rows, int64_t blocks) {
    const int64_t tiles = ((m + kTileM - 1) / kTileM) * ((n + kTileN - 1) / kTileN),
                  steps = (rows + kDepth - 1) / kDepth;
    return tiles > 0 && blocks >= tiles && steps >= 2 * (blocks / tiles) &&
           steps <= std::numeric_limits<int>::max() / (blocks * blocks);
  }
  __host__ __device__ int whole() const { return cuts * tiles; }  // blocks without the spare ones
  int64_t parts() const { return whole() + (spare ? spare + tiles - 1 : 0); }
  // The most that a block has.
  __host__ __device__ int most_pieces() const { return spare ? tiles / spare + 2 : 1; }

  // The first of the shared steps, tile after tile, of a spare block.
  __host__ __device__ int first_shared(int index) const { return rest * tiles * index / spare; }

  __host__ __device__ GroupTile corner(int tile) const {
    return {0, 0, 0, tile / tiles_n * kTileM, tile % tiles_n * kTileN};
  }
  // Steps [from, to) of a tile; its group is the number of the part.
  __host__ __device__ GroupTile part(int number, int tile, int from, int to) const {
    GroupTile t = corner(tile);
    const int64_t end = int64_t{to} * kDepth;
    t.group = number;
    t.begin = int64_t{from} * kDepth;
    t.rows = static_cast<int>((end < rows ? end : rows) - t.begin);
    return t;
  }
  // The i-th part of a block; without rows where it has no more.
  __host__ __device__ GroupTile piece(int block, int i) const {
    if (block < whole()) {
      const int cut = block / tiles, own = steps - rest;
      if (i > 0) return {};
      return part(block, block % tiles, own * cut / cuts, own * (cut + 1) / cuts);
    }
    const int index = block - whole();
    if (index >= spare) return {};
    const int begin = first_shared(index), end = first_shared(index + 1), tile = begin / rest + i,
              first = tile * rest, last = first + rest, own = steps - rest;
    const int from = begin > first ? begin : first, to = end < last ? end : last;
    if (from >= to) return {};
    return part(whole() + tile + index, tile, own + from - first, own + to - first);
  }
  // f(number) for each part of a tile, in the order of their rows.
  template <class F>
  __host__ __device__ void for_parts(int tile, F&& f) const {
    for (int cut = 0; cut < cuts; ++cut) f(cut * tiles + tile);
    if (spare == 0) return;
    const int first = tile * rest;
    int index = tile * spare / tiles;
    while (first_shared(index + 1) <= first) ++index;
    for (; index < spare && first_shared(index) < first + rest; ++index) f(whole() + tile + index);
  }
};

// c (+)= the sum of each tile's parts, each [kTileM, kTileN].
inline __global__ void add_parts_kernel(float* c, const float* parts, RowCuts cuts, int m, int n,
                                        bool accumulate) {
  constexpr int kLanes = kTileN / 4;  // a row's
  const int tile = blockIdx.x, row = blockIdx.y * (blockDim.x / kLanes) + threadIdx.x / kLanes,
            column = threadIdx.x % kLanes * 4;
  const GroupTile t = cuts.corner(tile);
  if (t.m0 + row >= m || t.n0 + column >= n) return;
  float4* out = reinterpret_cast<float4*>(c + int64_t{t.m0 + row} * n + t.n0 + column);
  float4 sum = accumulate ? *out : float4{0, 0, 0, 0};
  cuts.for_parts(tile, [&](int number) {
    const float4 x =
        *reinterpret_cast<const float4*>(parts + number * RowCuts::kPartElements + row * kTileN + column);
    sum = {sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w};
  });
  *out = sum;
}

}  // namespace switchyard::kernels::hopper
