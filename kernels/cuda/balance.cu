#include "kernels/balance.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kWarps = 4;       // tokens a block where a warp has a token
constexpr int kThreads = 1024;  // of a block that sums over many tokens
constexpr int kChunk = 4;       // experts a lane sums at a time: 128 a warp
constexpr int kMeanTokens = kThreads / kWarp;
constexpr int64_t kFewTokens = 8 * kMeanTokens;  // of a segment that one block sums as fast as many

// 1 / sum, or 0 where all scores of a token have underflowed: such a token counts for no expert.
template <class A>
__device__ A inverse(A sum) {
  return sum == 0 ? A{0} : A{1} / sum;
}

// 1 / the sum of a row of scores, in a warp.
template <class A>
__device__ A inverse_sum(const A* scores, int64_t experts) {
  A sum = 0;
  for (int64_t e = threadIdx.x % kWarp; e < experts; e += kWarp) sum += scores[e];
  return inverse(warp_reduce(sum));
}

// scale * the sum over the tokens of block blockIdx.z of segment blockIdx.x, for the experts of tile
// blockIdx.y, to out[blockIdx.z, s, e]. A warp walks every 32nd token.
template <class A>
__global__ void mean_kernel(BalanceForward<A> a, A* out, A scale_by) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t tokens = a.tokens / a.segments, share = ceil_div<int64_t>(tokens, gridDim.z);
  const int64_t first = blockIdx.x * tokens + blockIdx.z * share;
  const int64_t last = (blockIdx.z + 1) * share < tokens ? first + share : (blockIdx.x + 1) * tokens;
  const int64_t tile = int64_t{blockIdx.y} * kChunk * kWarp;
  A sum[kChunk] = {};
#pragma unroll 4
  for (int64_t t = first + warp; t < last; t += kMeanTokens) {
    const A* scores = a.scores + t * a.experts;
    const A scale = inverse_sum(scores, a.experts);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const int64_t e = tile + lane + kWarp * i;
      if (e < a.experts) sum[i] += scores[e] * scale;
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
      out[(int64_t{blockIdx.z} * a.segments + blockIdx.x) * a.experts + e] = total * scale_by;
    }
    __syncthreads();
  }
}

// sum[i] = scale * sum over blocks of partial[b, i]
template <class A>
__global__ void add_blocks(A* sum, const A* partial, int64_t n, A scale_by) {
  const int64_t i = map_index();
  if (i >= n) return;
  A total = 0;
#pragma unroll 16
  for (int64_t b = 0; b < BalanceForward<A>::kBlocks; ++b) total += partial[b * n + i];
  sum[i] = total * scale_by;
}

// scale * the pairs of block blockIdx.z of segment blockIdx.x that each expert has, to
// out[blockIdx.z, s, e].
template <class A>
__global__ void share_kernel(BalanceForward<A> a, A* out, A scale_by) {
  auto* assigned = reinterpret_cast<int32_t*>(dynamic_shared());  // [experts]
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads) assigned[e] = 0;
  __syncthreads();
  const int64_t pairs = a.tokens / a.segments * a.top_k, share = ceil_div<int64_t>(pairs, gridDim.z);
  const int64_t first = blockIdx.z * share, last = first + share < pairs ? first + share : pairs;
  const int32_t* expert = a.expert + blockIdx.x * pairs;
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) atomicAdd(&assigned[expert[i]], 1);
  __syncthreads();
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads)
    out[(int64_t{blockIdx.z} * a.segments + blockIdx.x) * a.experts + e] =
        scale_by * static_cast<A>(assigned[e]);
}

// dmean[s, e] = coeff E f[s, e] / segments for f = 1 / E + excess, given
template <class A>
__global__ void given_share_kernel(BalanceForward<A> a) {
  const A unit = a.coeff / static_cast<A>(a.segments);
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads)
    a.dmean[blockIdx.x * a.experts + e] = unit * (1 + static_cast<A>(a.experts) * a.excess[e]);
}

// What expert's mean score p adds to the sum that its loss is made of. `f`:
// kSwitch's share of the assignments.
__device__ double loss_term(BalanceKind kind, double p, double f, double average) {
  const double safe = Max{}(p, kLeastMean);
  switch (kind) {
    case BalanceKind::kSwitch: return f * p;
    case BalanceKind::kKl: return std::log(safe);
    case BalanceKind::kCv: return (p - average) * (p - average);
    case BalanceKind::kEntropy: return p * std::log(safe);
  }
  return 0;
}

// The loss of one segment from P and, but for kSwitch, d loss / d P. In a block; every thread has the
// result. In double, because the loss of a balanced layer is a small difference of large terms.
template <class A>
__device__ double segment_loss(const BalanceForward<A>& a, const A* mean, A* dmean) {
  const double experts = static_cast<double>(a.experts), unit = a.coeff / static_cast<double>(a.segments);
  double total = 0, sum = 0;
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads) total += mean[e];
  const double average = Max{}(team_reduce(total) / experts, kLeastMean);
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads)
    sum += loss_term(a.kind, mean[e], dmean[e], average);
  sum = team_reduce(sum);
  if (a.kind == BalanceKind::kSwitch) return sum;

  const double variance = sum / experts, square = average * average;
  // With one expert there is nothing to balance, and log E = 0.
  const double per_log = a.experts > 1 ? 1 / std::log(experts) : 0;
  for (int64_t e = threadIdx.x; e < a.experts; e += kThreads) {
    const double p = mean[e], safe = Max{}(p, kLeastMean);
    double slope = per_log * (std::log(safe) + 1);
    if (a.kind == BalanceKind::kKl) slope = -1 / (experts * safe);
    if (a.kind == BalanceKind::kCv) slope = 2 / (experts * square) * (p - average - variance / average);
    dmean[e] = static_cast<A>(unit * slope);
  }
  if (a.kind == BalanceKind::kKl) return unit * (-std::log(experts) - sum / experts);
  if (a.kind == BalanceKind::kCv) return unit * variance / square;
  return a.experts > 1 ? unit * (1 + sum * per_log) : 0;
}

template <class A>
__global__ void loss_kernel(BalanceForward<A> a) {
  double loss = 0;
  for (int64_t s = 0; s < a.segments; ++s)
    loss += segment_loss(a, a.mean + s * a.experts, a.dmean + s * a.experts);
  if (threadIdx.x == 0) a.loss[0] = static_cast<A>(loss);
}

// A warp a token. p = s / sum(s):
//   dp = dloss dmean / tokens of the segment
//   ds = (dp - sum_e dp_e p_e) / sum(s)
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
  const A scale = inverse(warp_reduce(sum));
  dot = warp_reduce(dot) * scale;
  const A unit = a.dloss[0] / static_cast<A>(tokens) * scale;
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

// out[s, e] = scale * what the blocks of segment s sum up with `kernel`, tiles of experts along the grid's y:
// one block for few tokens or where there is no workspace, else many blocks and then their sum.
template <class A>
void launch_sums(Cuda on, void (*kernel)(BalanceForward<A>, A*, A), const BalanceForward<A>& a, dim3 grid,
                 size_t shared, A* out, A scale_by) {
  if (!a.workspace || a.tokens / a.segments <= kFewTokens) {
    launch_kernel(kernel, grid, kThreads, shared, on.stream, a, out, scale_by);
    return;
  }
  grid.z = static_cast<unsigned>(BalanceForward<A>::kBlocks);
  launch_kernel(kernel, grid, kThreads, shared, on.stream, a, a.workspace, A{1});
  const int64_t n = a.segments * a.experts;
  launch_kernel(add_blocks<A>, map_grid(n), kMapThreads, 0, on.stream, out, a.workspace, n, scale_by);
}

// dmean[s, e] = coeff E f[s, e] / segments, f from the segment's assignments. Counts are exact in A up to
// 2^24 pairs.
template <class A>
void launch_shares(Cuda on, const BalanceForward<A>& a) {
  const int64_t pairs = a.tokens / a.segments * a.top_k;
  const A unit = a.coeff * static_cast<A>(a.experts) / static_cast<A>(a.segments) / static_cast<A>(pairs);
  launch_sums(on, share_kernel<A>, a, grid_of(a.segments), static_cast<size_t>(a.experts) * sizeof(int32_t),
              a.dmean, unit);
}

}  // namespace

template <class A>
void run(Cuda on, const BalanceForward<A>& a) {
  if (a.tokens == 0) {
    const size_t bytes = static_cast<size_t>(a.segments * a.experts) * sizeof(A);
    CUDA_CHECK(cudaMemsetAsync(a.loss, 0, sizeof(A), on.stream));
    CUDA_CHECK(cudaMemsetAsync(a.dmean, 0, bytes, on.stream));
    CUDA_CHECK(cudaMemsetAsync(a.mean, 0, bytes, on.stream));
    return;
  }
  CHECK(a.segments > 0 && a.tokens % a.segments == 0, "tokens: ", a.tokens, ", segments: ", a.segments);
  dim3 grid = grid_of(a.segments);
  if (a.kind == BalanceKind::kSwitch && a.excess)
    launch_kernel(given_share_kernel<A>, grid, kThreads, 0, on.stream, a);
  else if (a.kind == BalanceKind::kSwitch)
    launch_shares(on, a);
  grid.y = static_cast<unsigned>(ceil_div<int64_t>(a.experts, kChunk * kWarp));
  launch_sums(on, mean_kernel<A>, a, grid, 0, a.mean, A{1} / static_cast<A>(a.tokens / a.segments));
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
