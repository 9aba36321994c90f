// How the output of a grouped product is cut into tiles. The group sizes are on the device only, so every
// block counts the tiles itself, once, and then walks tiles blockIdx.x, blockIdx.x + gridDim.x, ... of one
// global numbering. A tile is computed by one block in a fixed order: the same bits every time.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/dtype.h"

namespace switchyard::kernels {

// One group's product is C[m, n] = A[m, k] B[k, n].
enum class Form {
  kForward,  // C = rows of y, A = rows of x, B = W^T       (m ragged, W [n, k])
  kData,     // C = rows of y, A = rows of x, B = W         (m ragged, W [k, n])
  kWeight,   // C = dW,        A = (rows of dy)^T, B = rows of x   (k ragged)
};

// What becomes of C.
enum class Ending {
  kStore,
  kGate,  // kForward: C is gate | up, n / 2 columns each; SwiGLU of them is stored as well
  kPart,  // kWeight: C is parts of tiles, which someone else adds (row_cuts.cuh)
};

template <class T, class C>
struct GroupedProblem {
  C* c;
  const T* a;
  const T* b;
  const int64_t* offsets;  // [groups + 1], device; null: one group of all rows
  int64_t rows;            // of the row buffers
  int groups;
  int m, n, k;  // the ragged one is 0
  bool accumulate;
  int64_t ldc = 0;     // elements between rows of C; 0: n
  C* gated = nullptr;  // kGate: [rows, n / 2]

  __host__ __device__ int64_t c_stride() const { return ldc ? ldc : n; }
  // The first row of group g; of g = groups: the row past the last group.
  __device__ int64_t first_row(int64_t g) const { return offsets ? offsets[g] : g * rows; }
};

// Of the kernel for Hopper (grouped_wgmma.cuh).
namespace hopper {
constexpr int kTileM = 128, kTileN = 256;
}

struct GroupTile {
  int64_t begin;  // the group's first row
  int rows;       // the group's rows
  int group;
  int m0, n0;  // the tile's corner within the group's C
};

constexpr int kMaxGroups = 4096;

inline size_t tile_counts_bytes(int groups) { return (groups + 1) * sizeof(int); }

__host__ __device__ constexpr int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

// starts[g] = the number of tiles before group g; starts[groups] = all. Run by the first warp of the block;
// the caller puts a barrier after it.
template <Form kForm, class Problem>
__device__ void count_tiles(int* starts, const Problem& p, int tile_m, int tile_n) {
  if (threadIdx.x >= 32) return;
  const int lane = threadIdx.x, tiles_n = ceil_div(p.n, tile_n);
  int before = 0;
  for (int first = 0; first < p.groups; first += 32) {
    const int g = first + lane;
    int count = 0;
    if (g < p.groups) {
      const int64_t m = kForm == Form::kWeight ? p.m : p.first_row(g + 1) - p.first_row(g);
      count = ceil_div(m, tile_m) * tiles_n;
    }
    int sum = count;
    for (int step = 1; step < 32; step *= 2) {
      const int below = __shfl_up_sync(0xffffffffu, sum, step);
      if (lane >= step) sum += below;
    }
    if (g < p.groups) starts[g] = before + sum - count;
    before += __shfl_sync(0xffffffffu, sum, 31);
  }
  if (lane == 0) starts[p.groups] = before;
}

// The last group with starts[g] <= tile; an empty group has the start of its successor and is never the last.
__device__ inline int group_of(const int* starts, int groups, int tile) {
  int low = 0, high = groups;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (starts[middle] <= tile) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Tiles of a group are numbered in bands of kBand tile rows, column by column within a band: the blocks that
// run at the same time share few rows of A and few columns of B, which then stay in the L2 cache.
template <Form kForm, class Problem>
__device__ GroupTile group_tile(const int* starts, const Problem& p, int tile, int tile_m, int tile_n) {
  constexpr int kBand = 16;
  GroupTile t;
  t.group = group_of(starts, p.groups, tile);
  t.begin = p.first_row(t.group);
  t.rows = static_cast<int>(p.first_row(t.group + 1) - t.begin);
  const int tiles_m = ceil_div(kForm == Form::kWeight ? p.m : t.rows, tile_m),
            tiles_n = ceil_div(p.n, tile_n);
  const int local = tile - starts[t.group];
  const int band = local / (kBand * tiles_n), within = local - band * kBand * tiles_n;
  const int height = min(kBand, tiles_m - band * kBand);
  t.m0 = (band * kBand + within % height) * tile_m;
  t.n0 = within / height * tile_n;
  return t;
}

// The tile as a plain product with extents: m x n x k elements remain from the corner on.
template <class T, class C>
struct TileView {
  const T* a;  // element (0, 0); k contiguous, in kWeight m contiguous
  const T* b;  // element (0, 0); k contiguous in kForward, else n contiguous
  C* c;
  int64_t lda, ldb, ldc;
  int m, n, k;
};

template <Form kForm, class T, class C>
__device__ TileView<T, C> view(const GroupedProblem<T, C>& p, const GroupTile& t) {
  TileView<T, C> v;
  const int64_t group = t.group;
  v.ldc = p.c_stride();
  v.n = p.n - t.n0;
  if constexpr (kForm == Form::kWeight) {
    v.m = p.m - t.m0;
    v.k = t.rows;
    v.lda = p.m;
    v.ldb = p.n;
    v.a = p.a + t.begin * p.m + t.m0;
    v.b = p.b + t.begin * p.n + t.n0;
    v.c = p.c + (group * p.m + t.m0) * p.n + t.n0;
  } else {
    v.m = t.rows - t.m0;
    v.k = p.k;
    v.lda = p.k;
    v.ldb = kForm == Form::kForward ? p.k : p.n;
    v.a = p.a + (t.begin + t.m0) * p.k;
    v.b = p.b + group * p.n * p.k + (kForm == Form::kForward ? static_cast<int64_t>(t.n0) * p.k : t.n0);
    v.c = p.c + (t.begin + t.m0) * v.ldc + t.n0;
  }
  return v;
}

// The most tiles that the groups can have, whatever their sizes: known on the host.
template <Form kForm, class Problem>
int64_t most_tiles(const Problem& p, int tile_m, int tile_n) {
  const int64_t columns = ceil_div(p.n, tile_n);
  if (kForm == Form::kWeight) return columns * ceil_div(p.m, tile_m) * p.groups;
  return columns * (p.rows / tile_m + p.groups);
}

}  // namespace switchyard::kernels
