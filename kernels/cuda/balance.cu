#include "kernels/balance.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kWarps = 4;       // tokens a block where a warp has a token
constexpr int kThreads = 1024;  // of a block that sums over many tokens
constexpr int kChunk = 4;       // experts a lane sums at a time: 128 a warp
constexpr int kMeanTokens = kThreads / kWarp;

// Sum of a row of scores, in a warp.
template <class A>
__device__ A row_sum(const A* scores, int64_t experts) {
  A sum = 0;
  for (int64_t e = threadIdx.x % kWarp; e < experts; e += kWarp) sum += scores[e];
  return warp_reduce(sum);
}

// mean[s, e] for the experts of tile blockIdx.y in segment blockIdx.x. A warp walks every 32nd token.
template <class A>
__global__ void mean_kernel(BalanceForward<A> a) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t tokens = a.tokens / a.segments, first = blockIdx.x * tokens;
  const int64_t tile = int64_t{blockIdx.y} * kChunk * kWarp;
  A sum[kChunk] = {};
#pragma unroll 4
  for (int64_t t = first + warp; t < first + tokens; t += kMeanTokens) {
    const A* scores = a.scores + t * a.experts;
    const A total = row_sum(scores, a.experts);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const int64_t e = tile + lane + kWarp * i;
      if (e < a.experts) sum[i] += scores[e] / total;
    }
  }
  __shared__ A sums[kMeanTokens][kWarp];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const int64_t e = tile + lane + kWarp * i;
    sums[warp][lane] = sum[i];
    __syncthreads();
    if (warp == 0 && e < a.experts) {
      A total = 0;
      for (int w = 0; w < kMeanTokens; ++w) total += sums[w][lane];
      a.mean[blockIdx.x * a.experts + e] = total / static_cast<A>(tokens);
    }
    __syncthreads();
  }
}

// dmean[s, e] = coeff E f[s, e] / segments. A block a segment.
template <class A>
__global__ void share_kernel(BalanceForward<A> a) {
  extern __shared__ int32_t assigned[];  // [experts]
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads) assigned[e] = 0;
  __syncthreads();
  const int64_t pairs = a.tokens / a.segments * a.top_k;
  const int32_t* expert = a.expert + blockIdx.x * pairs;
  for (int64_t i = threadIdx.x; i < pairs; i += kThreads) atomicAdd(&assigned[expert[i]], 1);
  __syncthreads();
  const A unit = a.coeff * static_cast<A>(a.experts) / static_cast<A>(a.segments) / static_cast<A>(pairs);
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads)
    a.dmean[blockIdx.x * a.experts + e] = unit * static_cast<A>(assigned[e]);
}

// The loss of one segment from P and, but for kSwitch, d loss / d P. In a block; the result is every
// thread's.
template <class A>
__device__ A segment_loss(const BalanceForward<A>& a, const A* mean, A* dmean) {
  const A experts = static_cast<A>(a.experts), coeff = a.coeff / static_cast<A>(a.segments);
  A sum = 0, average = 0, root = 0;
  if (a.kind == BalanceKind::kCv) {
    for (int64_t e = threadIdx.x; e < a.experts; e += kThreads) sum += mean[e];
    average = team_reduce(sum) / experts;
    sum = 0;
  }
  const A log_experts = std::log(experts);
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads) {
    const A p = mean[e];
    switch (a.kind) {
      case BalanceKind::kSwitch: sum += dmean[e] * p; break;
      case BalanceKind::kKl: sum += std::log(p); break;
      case BalanceKind::kCv: sum += (p - average) * (p - average); break;
      case BalanceKind::kEntropy: sum += p > 0 ? p * std::log(p) : A{0}; break;
    }
  }
  sum = team_reduce(sum);
  root = average * average;
  const A variance = sum / experts;
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads) {
    const A p = mean[e];
    switch (a.kind) {
      case BalanceKind::kSwitch: break;
      case BalanceKind::kKl: dmean[e] = -coeff / (experts * p); break;
      case BalanceKind::kCv:
        dmean[e] = coeff * 2 / (experts * root) * (p - average - variance / average);
        break;
      case BalanceKind::kEntropy: dmean[e] = coeff * (std::log(p) + 1) / log_experts; break;
    }
  }
  switch (a.kind) {
    case BalanceKind::kSwitch: return sum;
    case BalanceKind::kKl: return coeff * (-log_experts - sum / experts);
    case BalanceKind::kCv: return coeff * variance / root;
    case BalanceKind::kEntropy: return coeff * (1 + sum / log_experts);
  }
  return 0;
}

template <class A>
__global__ void loss_kernel(BalanceForward<A> a) {
  A loss = 0;
  for (int64_t s = 0; s < a.segments; ++s)
    loss += segment_loss(a, a.mean + s * a.experts, a.dmean + s * a.experts);
  if (threadIdx.x == 0) a.loss[0] = loss;
}

// p = s / sum(s):   ds = (d p - sum_e d p_e p_e) / sum(s),   d p = dloss dmean / tokens of the segment. A
// warp a token.
template <class A>
__global__ void backward_kernel(BalanceBackward<A> a) {
  const int64_t token = team_row();
  if (token >= a.tokens) return;
  const int64_t tokens = a.tokens / a.segments;
  const A* scores = a.scores + token * a.experts;
  const A* dmean = a.dmean + token / tokens * a.experts;
  A sum = 0, dot = 0;
  for (int64_t e = threadIdx.x; e < a.experts; e += kWarp) {
    sum += scores[e];
    dot += scores[e] * dmean[e];
  }
  sum = warp_reduce(sum);
  dot = warp_reduce(dot) / sum;
  const A unit = a.dloss[0] / static_cast<A>(tokens) / sum;
  for (int64_t e = threadIdx.x; e < a.experts; e += kWarp)
    a.dscores[token * a.experts + e] = unit * (dmean[e] - dot);
}

// lse of a row, a warp a token
template <class A>
__global__ void lse_kernel(ZLossForward<A> a) {
  const int64_t token = team_row();
  if (token >= a.tokens) return;
  const A* z = a.logits + token * a.experts;
  A top = z[0], sum = 0;
  for (int64_t e = threadIdx.x; e < a.experts; e += kWarp) top = Max{}(z[e], top);
  top = warp_reduce(top, Max{});
  for (int64_t e = threadIdx.x; e < a.experts; e += kWarp) sum += std::exp(z[e] - top);
  sum = warp_reduce(sum);
  if (threadIdx.x == 0) a.lse[token] = top + std::log(sum);
}

// A single block.
template <class A>
__global__ void zloss_kernel(ZLossForward<A> a) {
  A sum = 0;
#pragma unroll 4
  for (int64_t t = threadIdx.x; t < a.tokens; t += kThreads) sum += a.lse[t] * a.lse[t];
  sum = team_reduce(sum);
  if (threadIdx.x == 0) a.loss[0] = a.tokens ? a.coeff * sum / static_cast<A>(a.tokens) : A{0};
}

template <class A>
__global__ void zloss_backward_kernel(ZLossBackward<A> a) {
  const int64_t token = team_row();
  if (token >= a.tokens) return;
  const A lse = a.lse[token];
  const A unit = a.dloss[0] * 2 * a.coeff / static_cast<A>(a.tokens) * lse;
  for (int64_t e = threadIdx.x; e < a.experts; e += kWarp) {
    const int64_t at = token * a.experts + e;
    a.dlogits[at] = unit * std::exp(a.logits[at] - lse);
  }
}

const dim3 kTokenBlock(kWarp, kWarps);

}  // namespace

template <class A>
void run(Cuda on, const BalanceForward<A>& a) {
  CHECK(a.segments > 0 && a.tokens % a.segments == 0, "tokens: ", a.tokens, ", segments: ", a.segments);
  dim3 grid = grid_of(a.segments);
  if (a.kind == BalanceKind::kSwitch)
    launch_kernel(share_kernel<A>, grid, kThreads, static_cast<size_t>(a.experts) * sizeof(int32_t),
                  on.stream, a);
  grid.y = static_cast<unsigned>(ceil_div<int64_t>(a.experts, kChunk * kWarp));
  launch_kernel(mean_kernel<A>, grid, kThreads, 0, on.stream, a);
  launch_kernel(loss_kernel<A>, 1, kThreads, 0, on.stream, a);
}

template <class A>
void run(Cuda on, const BalanceBackward<A>& a) {
  launch_kernel(backward_kernel<A>, team_grid(a.tokens, kTokenBlock), kTokenBlock, 0, on.stream, a);
}

template <class A>
void run(Cuda on, const ZLossForward<A>& a) {
  launch_kernel(lse_kernel<A>, team_grid(a.tokens, kTokenBlock), kTokenBlock, 0, on.stream, a);
  launch_kernel(zloss_kernel<A>, 1, kThreads, 0, on.stream, a);
}

template <class A>
void run(Cuda on, const ZLossBackward<A>& a) {
  launch_kernel(zloss_backward_kernel<A>, team_grid(a.tokens, kTokenBlock), kTokenBlock, 0, on.stream, a);
}

#define SWITCHYARD_INSTANTIATE(A)                     \
  template void run(Cuda, const BalanceForward<A>&);  \
  template void run(Cuda, const BalanceBackward<A>&); \
  template void run(Cuda, const ZLossForward<A>&);    \
  template void run(Cuda, const ZLossBackward<A>&);

SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
