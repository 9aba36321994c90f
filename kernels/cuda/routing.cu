#include "kernels/routing.h"

#include <limits>

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

// A warp a token. Lane l keeps experts l, l + 32, ...: P of them. Choice j of the token lives in lane j.
constexpr int kWarps = 4;
static_assert(kMaxCudaExperts <= 16 * kWarp && kMaxCudaChoices <= kWarp && kMaxCudaGroups <= kWarp);

template <class A>
__device__ constexpr A lowest() {
  return -std::numeric_limits<A>::infinity();
}

// A score and whose it is. The larger wins, then the lower number.
template <class A>
struct Candidate {
  A value;
  int32_t index;
};

template <class A>
__device__ Candidate<A> better(Candidate<A> a, Candidate<A> b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

template <class A>
__device__ Candidate<A> warp_best(Candidate<A> mine) {
  for (int lane = kWarp / 2; lane > 0; lane /= 2) {
    const Candidate<A> other{__shfl_xor_sync(kAllLanes, mine.value, lane),
                             __shfl_xor_sync(kAllLanes, mine.index, lane)};
    mine = better(mine, other);
  }
  return mine;
}

// The best expert of those not `taken` in begin <= expert < end. Bit i of a lane's `taken` is expert
// lane + 32 i.
template <int P, class A>
__device__ Candidate<A> best_expert(const A (&value)[P], uint32_t taken, int64_t begin, int64_t end) {
  const int lane = threadIdx.x;
  Candidate<A> mine{lowest<A>(), std::numeric_limits<int32_t>::max()};
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int32_t e = lane + kWarp * i;
    if (e >= begin && e < end && !(taken >> i & 1u)) mine = better(mine, Candidate<A>{value[i], e});
  }
  return warp_best(mine);
}

__device__ inline uint32_t taken_bit(int32_t expert) {
  return expert % kWarp == static_cast<int32_t>(threadIdx.x) ? 1u << expert / kWarp : 0u;
}

// Marks as taken all experts outside the group_topk groups with the best sums of
// their top_k / group_topk best.
template <int P, class A>
__device__ uint32_t outside_best_groups(const A (&value)[P], const RouteRule& rule) {
  const int64_t size = rule.experts / rule.num_groups;
  const int lane = threadIdx.x;
  A score = lowest<A>();
  for (int g = 0; g < rule.num_groups; ++g) {
    A sum = 0;
    uint32_t taken = 0;
    for (int n = 0; n < rule.top_k / rule.group_topk; ++n) {
      const Candidate<A> best = best_expert<P>(value, taken, g * size, (g + 1) * size);
      sum += best.value;
      taken |= taken_bit(best.index);
    }
    if (lane == g && sum == sum) score = sum;
  }
  uint32_t allowed = 0;  // bit g: group g
  for (int n = 0; n < rule.group_topk; ++n) {
    const bool out = lane >= rule.num_groups || (allowed >> lane & 1u);
    const int32_t none = kWarp + lane;
    allowed |= 1u << warp_best(out ? Candidate<A>{lowest<A>(), none} : Candidate<A>{score, lane}).index;
  }
  uint32_t taken = 0;
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int64_t e = lane + kWarp * i;
    if (e < rule.experts && !(allowed >> (e / size) & 1u)) taken |= 1u << i;
  }
  return taken;
}

// scores of all experts, in place of the logits
template <int P, class A>
__device__ void score(A (&z)[P], const RouteRule& rule) {
  if (rule.score == ScoreFunction::kSigmoid) {
#pragma unroll
    for (int i = 0; i < P; ++i) z[i] = A{1} / (A{1} + std::exp(-z[i]));
    return;
  }
  A top = lowest<A>(), sum = 0;
#pragma unroll
  for (int i = 0; i < P; ++i) top = Max{}(z[i], top);
  top = warp_reduce(top, Max{});
#pragma unroll
  for (int i = 0; i < P; ++i) {
    z[i] = std::exp(z[i] - top);
    sum += z[i];
  }
  sum = warp_reduce(sum);
#pragma unroll
  for (int i = 0; i < P; ++i) z[i] /= sum;
}

// The weight of this lane's choice; `chosen` says whether it has one. s, z: its score and logit.
template <class A>
__device__ A weigh(bool chosen, A s, A z, const RouteRule& rule) {
  const A scaling = static_cast<A>(rule.scaling);
  if (rule.score == ScoreFunction::kSoftmax && !rule.pre_softmax) {
    const A top = warp_reduce(chosen ? z : lowest<A>(), Max{});
    const A u = chosen ? std::exp(z - top) : A{0};
    return scaling * u / warp_reduce(u);
  }
  if (!rule.normalize) return scaling * s;
  const A tiny = rule.score == ScoreFunction::kSigmoid ? static_cast<A>(kTiny) : A{0};
  return scaling * s / (warp_reduce(chosen ? s : A{0}) + tiny);
}

template <int P, class A>
__device__ void write_entropy(A* entropy, const A (&s)[P], int64_t experts) {
  A sum = 0, weighted = 0;  // of s, of s log s
#pragma unroll
  for (int i = 0; i < P; ++i) {
    if (static_cast<int64_t>(threadIdx.x) + kWarp * i >= experts || s[i] == A{0}) continue;
    sum += s[i];
    weighted += s[i] * std::log(s[i]);
  }
  sum = warp_reduce(sum);
  weighted = warp_reduce(weighted);
  if (threadIdx.x == 0) *entropy = std::log(sum) - weighted / sum;
}

template <int P, class A>
__global__ void forward_kernel(RouteForward<A> a) {
  const RouteRule& rule = a.rule;
  const int64_t token = team_row();
  if (token >= a.tokens) return;
  const int lane = threadIdx.x;
  const A* logits = a.logits + token * rule.experts;
  A s[P], key[P];
#pragma unroll
  for (int i = 0; i < P; ++i) s[i] = lane + kWarp * i < rule.experts ? logits[lane + kWarp * i] : lowest<A>();
  score<P>(s, rule);
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int64_t e = lane + kWarp * i;
    if (e < rule.experts) a.scores[token * rule.experts + e] = s[i];
    key[i] = e < rule.experts && a.bias ? s[i] + a.bias[e] : s[i];
    // NaN: the loss will tell; here the choices must stay experts.
    if (key[i] != key[i]) key[i] = lowest<A>();
  }
  if (a.entropy) write_entropy<P>(a.entropy + token, s, rule.experts);

  const bool chosen = lane < rule.top_k;
  int32_t choice = chosen ? static_cast<int32_t>((token * rule.top_k + lane) % rule.experts) : 0;
  if (!rule.force_balance) {
    uint32_t taken = rule.num_groups > 1 ? outside_best_groups<P>(key, rule) : 0;
    for (int j = 0; j < rule.top_k; ++j) {
      const int32_t best = best_expert<P>(key, taken, 0, rule.experts).index;
      taken |= taken_bit(best);
      if (lane == j) choice = best;
    }
  }
  A mine = 0;  // the score of this lane's choice, from the lane that has it
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const A held = __shfl_sync(kAllLanes, s[i], choice % kWarp);
    if (choice / kWarp == i) mine = held;
  }
  const A weight = weigh(chosen, mine, logits[choice], rule);
  if (!chosen) return;
  a.expert[token * rule.top_k + lane] = choice;
  a.weight[token * rule.top_k + lane] = weight;
}

// d loss / d u of this lane's choice, or d loss / d z of it for the softmax over the chosen.
//   u / sum(u):  du = (scaling dw - sum_j dw_j w_j) / sum(u)
//   softmax:     dz = w (dw - sum_j dw_j w_j / scaling)
template <class A>
__device__ A choice_gradient(bool chosen, A dw, A w, A s, const RouteRule& rule) {
  const A scaling = static_cast<A>(rule.scaling);
  const A dot = warp_reduce(dw * w);
  if (rule.score == ScoreFunction::kSoftmax && !rule.pre_softmax)
    return rule.scaling == 0 ? A{0} : w * (dw - dot / scaling);
  if (!rule.normalize) return scaling * dw;
  const A tiny = rule.score == ScoreFunction::kSigmoid ? static_cast<A>(kTiny) : A{0};
  return (scaling * dw - dot) / (warp_reduce(chosen ? s : A{0}) + tiny);
}

template <int P, class A>
__global__ void backward_kernel(RouteBackward<A> a) {
  const RouteRule& rule = a.rule;
  const int64_t token = team_row();
  if (token >= a.tokens) return;
  const int lane = threadIdx.x;
  const bool softmax = rule.score == ScoreFunction::kSoftmax;
  A s[P], ds[P], dz[P];
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int64_t e = lane + kWarp * i, at = token * rule.experts + e;
    s[i] = e < rule.experts ? a.scores[at] : A{0};
    ds[i] = e < rule.experts && a.dscores ? a.dscores[at] : A{0};
    dz[i] = 0;
  }
  if (a.dweight) {
    const bool chosen = lane < rule.top_k;
    const int64_t pair = token * rule.top_k + lane;
    const int32_t expert = chosen ? a.expert[pair] : 0;
    const A gradient =
        choice_gradient(chosen, chosen ? a.dweight[pair] : A{0}, chosen ? a.weight[pair] : A{0},
                        a.scores[token * rule.experts + expert], rule);
    const bool to_logits = softmax && !rule.pre_softmax;
    for (int j = 0; j < rule.top_k; ++j) {
      const int32_t e = __shfl_sync(kAllLanes, expert, j);
      const A g = __shfl_sync(kAllLanes, gradient, j);
#pragma unroll
      for (int i = 0; i < P; ++i)
        if (e == lane + kWarp * i) (to_logits ? dz[i] : ds[i]) += g;
    }
  }
  A dot = 0;
#pragma unroll
  for (int i = 0; i < P; ++i) dot += ds[i] * s[i];
  dot = warp_reduce(dot);
#pragma unroll
  for (int i = 0; i < P; ++i) {
    const int64_t e = lane + kWarp * i;
    dz[i] += softmax ? s[i] * (ds[i] - dot) : ds[i] * s[i] * (A{1} - s[i]);
    if (e < rule.experts) a.dlogits[token * rule.experts + e] = dz[i];
  }
}

void check(const RouteRule& rule) {
  rule.check();
  CHECK(rule.experts <= kMaxCudaExperts && rule.top_k <= kMaxCudaChoices && rule.num_groups <= kMaxCudaGroups,
        "experts: ", rule.experts, ", top_k: ", rule.top_k, ", groups: ", rule.num_groups);
}

// Calls f with P: experts a lane, a power of two.
template <class F>
void with_experts_per_lane(int64_t experts, F&& f) {
  if (experts <= 1 * kWarp)
    f(std::integral_constant<int, 1>{});
  else if (experts <= 2 * kWarp)
    f(std::integral_constant<int, 2>{});
  else if (experts <= 4 * kWarp)
    f(std::integral_constant<int, 4>{});
  else if (experts <= 8 * kWarp)
    f(std::integral_constant<int, 8>{});
  else
    f(std::integral_constant<int, 16>{});
}

}  // namespace

template <class A>
void run(Cuda on, const RouteForward<A>& a) {
  check(a.rule);
  const dim3 block(kWarp, kWarps);
  with_experts_per_lane(a.rule.experts, [&](auto p) {
    launch_kernel(forward_kernel<p, A>, team_grid(a.tokens, block), block, 0, on.stream, a);
  });
}

template <class A>
void run(Cuda on, const RouteBackward<A>& a) {
  check(a.rule);
  const dim3 block(kWarp, kWarps);
  with_experts_per_lane(a.rule.experts, [&](auto p) {
    launch_kernel(backward_kernel<p, A>, team_grid(a.tokens, block), block, 0, on.stream, a);
  });
}

template void run(Cuda, const RouteForward<float>&);
template void run(Cuda, const RouteForward<double>&);
template void run(Cuda, const RouteBackward<float>&);
template void run(Cuda, const RouteBackward<double>&);

}  // namespace switchyard::kernels
