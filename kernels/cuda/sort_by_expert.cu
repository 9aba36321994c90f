// SortByExpert of dispatch.h: a stable counting sort in three launches, blocks of 1024 pairs.
//   1. every block counts its pairs expert by expert; a pair's rank is the number of its kin before it in the
//   block
//   2. counts become starts: over the blocks of an expert, then over the experts
//   3. position = offsets[expert] + start[expert][block] + rank
#include "kernels/cuda/common.cuh"
#include "kernels/dispatch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kBlockPairs = SortByExpert::kBlockPairs;
constexpr int kScanThreads = 1024;

struct Sort {
  SortByExpert args;
  int64_t blocks;
  int32_t* rank;   // [pairs]
  int32_t* start;  // [experts, blocks]: counts after step 1, starts after step 2
};

// One warp, 32 pairs at a time, in order.
__global__ void count_kernel(Sort s) {
  auto* seen = reinterpret_cast<int32_t*>(dynamic_shared());  // [experts]
  const int lane = threadIdx.x;
  const int64_t experts = s.args.experts;
  for (int64_t e = lane; e < experts; e += kWarp) seen[e] = 0;
  __syncwarp();
  const int64_t begin = blockIdx.x * kBlockPairs;
#pragma unroll 4
  for (int64_t i = begin + lane; i - lane < begin + kBlockPairs && i - lane < s.args.pairs; i += kWarp) {
    const int32_t expert = i < s.args.pairs ? s.args.expert[i] : -1;
    const unsigned kin = __match_any_sync(kAllLanes, expert);
    const int before = __popc(kin & ((1u << lane) - 1u));
    if (expert >= 0) s.rank[i] = seen[expert] + before;
    __syncwarp();  // all have read
    if (expert >= 0 && before == 0) seen[expert] += __popc(kin);
    __syncwarp();  // all is written
  }
  for (int64_t e = lane; e < experts; e += kWarp) s.start[e * s.blocks + blockIdx.x] = seen[e];
}

template <class Integer>
__device__ Integer warp_inclusive_sum(Integer value) {
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Integer below = __shfl_up_sync(kAllLanes, value, distance);
    if (static_cast<int>(threadIdx.x) % kWarp >= distance) value += below;
  }
  return value;
}

// counts[e], and start[e, :] = the number of the expert's pairs in earlier blocks. One warp an expert.
__device__ void scan_blocks(const Sort& s, int64_t expert) {
  const int lane = threadIdx.x % kWarp;
  int32_t total = 0;
  for (int64_t b = lane; b - lane < s.blocks; b += kWarp) {
    int32_t* at = s.start + expert * s.blocks + b;
    const int32_t count = b < s.blocks ? *at : 0;
    const int32_t sum = warp_inclusive_sum(count);
    if (b < s.blocks) *at = total + sum - count;
    total += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  if (lane == 0) s.args.counts[expert] = total;
}

// A single block.
__global__ void scan_kernel(Sort s) {
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int64_t e = warp; e < s.args.experts; e += warps) scan_blocks(s, e);
  __syncthreads();
  if (warp != 0) return;
  int64_t total = 0;
  for (int64_t e = threadIdx.x; e - threadIdx.x < s.args.experts; e += kWarp) {
    const int64_t count = e < s.args.experts ? s.args.counts[e] : 0;
    const int64_t sum = warp_inclusive_sum(count);
    if (e < s.args.experts) s.args.offsets[e] = total + sum - count;
    total += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  if (threadIdx.x == 0) s.args.offsets[s.args.experts] = total;
}

__global__ void place_kernel(Sort s) {
  const int64_t i = map_index();
  if (i >= s.args.pairs) return;
  if (i >= s.args.offsets[s.args.experts]) s.args.source[i] = -1;
  const int32_t expert = s.args.expert[i];
  int32_t position = -1;
  if (expert >= 0) {
    const int32_t start = s.start[expert * s.blocks + i / kBlockPairs];
    position = static_cast<int32_t>(s.args.offsets[expert]) + start + s.rank[i];
    s.args.source[position] = static_cast<int32_t>(i);
  }
  s.args.position[i] = position;
}

}  // namespace

void run(Cuda on, const SortByExpert& a) {
  const int64_t blocks = ceil_div(a.pairs, kBlockPairs);
  auto* rank = static_cast<int32_t*>(a.workspace);
  const Sort sort{.args = a, .blocks = blocks, .rank = rank, .start = rank + a.pairs};
  const size_t shared = static_cast<size_t>(a.experts) * sizeof(int32_t);
  launch_kernel(count_kernel, grid_of(blocks), kWarp, shared, on.stream, sort);
  launch_kernel(scan_kernel, 1, kScanThreads, 0, on.stream, sort);
  launch_kernel(place_kernel, map_grid(a.pairs), kMapThreads, 0, on.stream, sort);
}

}  // namespace switchyard::kernels
