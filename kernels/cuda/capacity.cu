// DropOverCapacity of dispatch.h: pairs are sorted by expert, then one block an expert finds the
// key of the last pair that stays (a radix select, 8 bits at a time from the top) and drops the
// pairs below it. All keys differ.
#include "kernels/cuda/common.cuh"
#include "kernels/dispatch.h"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kDigits = 256;

// The larger key stays: weight in the upper bits, the earlier (choice, token) in the lower 32.
template <class A>
using Key = std::conditional_t<std::is_same_v<A, float>, uint64_t, unsigned __int128>;

// Unsigned integers in the order of the numbers; -0 counts as 0, NaN comes below all.
__device__ inline uint32_t ordered(float x) {
  if (x != x) return 0;
  const uint32_t bits = __float_as_uint(x == 0 ? 0.0f : x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ inline uint64_t ordered(double x) {
  if (x != x) return 0;
  const auto bits = static_cast<uint64_t>(__double_as_longlong(x == 0 ? 0.0 : x));
  return bits >> 63 ? ~bits : bits | 0x8000000000000000u;
}

template <class A>
__device__ Key<A> key_of(const DropOverCapacity<A>& a, int32_t pair) {
  const int64_t token = pair / a.top_k, choice = pair % a.top_k;
  const auto later = static_cast<uint32_t>(choice * a.tokens + token);
  Key<A> key = 0;
  if (a.policy == DropPolicy::kProbs) key = ordered(compared_weight(a.weight[pair]));
  return key << 32 | ~later;
}

struct Digit {
  int value;
  int64_t rank;  // of the wanted key among the keys with this digit, from 1
};

// The digit of the key that is number `rank` from the top, given how many keys have
// each digit. For a whole warp.
__device__ inline Digit find_digit(const int32_t* histogram, int64_t rank) {
  constexpr int kEach = kDigits / kWarp;  // lane 0 has the largest digits
  const int lane = threadIdx.x % kWarp, top = kDigits - 1 - lane * kEach;
  int64_t mine = 0;
  for (int i = 0; i < kEach; ++i) mine += histogram[top - i];
  int64_t through = mine;  // keys in this lane's digits and all larger ones
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int64_t above = __shfl_up_sync(kAllLanes, through, distance);
    if (lane >= distance) through += above;
  }
  const unsigned reached = __ballot_sync(kAllLanes, through >= rank);
  const int owner = __ffs(static_cast<int>(reached)) - 1;
  int digit = top;
  int64_t left = rank - (through - mine);
  for (int i = 0; i < kEach - 1 && left > histogram[digit]; ++i) left -= histogram[digit--];
  return {__shfl_sync(kAllLanes, digit, owner), __shfl_sync(kAllLanes, left, owner)};
}

template <class A>
__global__ void drop_kernel(DropOverCapacity<A> a, const int64_t* offsets, const int32_t* source) {
  const int64_t begin = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
  if (end - begin <= a.capacity) return;
  __shared__ int32_t histogram[kDigits];
  __shared__ Digit found;
  Key<A> threshold = 0;
  int64_t rank = a.capacity;
  if (rank > 0) {
    for (int shift = 8 * static_cast<int>(sizeof(A) + 4) - 8; shift >= 0; shift -= 8) {
      for (int i = threadIdx.x; i < kDigits; i += kThreads) histogram[i] = 0;
      __syncthreads();
      for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
        const Key<A> key = key_of(a, source[i]) >> shift;
        if (key >> 8 == threshold >> shift >> 8) atomicAdd(&histogram[static_cast<int>(key & 0xff)], 1);
      }
      __syncthreads();
      if (threadIdx.x < kWarp) {
        const Digit digit = find_digit(histogram, rank);
        if (threadIdx.x == 0) found = digit;
      }
      __syncthreads();
      threshold |= static_cast<Key<A>>(found.value) << shift;
      rank = found.rank;
    }
  }
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    if (a.capacity == 0 || key_of(a, source[i]) < threshold) a.expert[source[i]] = -1;
}

}  // namespace

template <class A>
void run(Cuda on, const DropOverCapacity<A>& a) {
  const int64_t pairs = a.tokens * a.top_k;
  auto* counts = static_cast<int64_t*>(a.workspace);
  auto* offsets = counts + a.experts;
  auto* position = reinterpret_cast<int32_t*>(offsets + a.experts + 1);
  auto* source = position + pairs;
  run(on, SortByExpert{.counts = counts,
                       .offsets = offsets,
                       .position = position,
                       .source = source,
                       .expert = a.expert,
                       .pairs = pairs,
                       .experts = a.experts,
                       .workspace = source + pairs});
  launch_kernel(drop_kernel<A>, grid_of(a.experts), kThreads, 0, on.stream, a, offsets, source);
}

template void run(Cuda, const DropOverCapacity<float>&);
template void run(Cuda, const DropOverCapacity<double>&);

}  // namespace switchyard::kernels
