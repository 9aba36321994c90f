#include "kernels/balance.h"

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/softmax.h"

namespace switchyard::kernels {
namespace {

// 1 / sum(s), or 0 where all scores have underflowed: such a token then counts for no expert.
template <class A>
A inverse_sum(const A* s, int64_t n) {
  const A sum = sum_of_row(s, n);
  return sum != 0 ? 1 / sum : A(0);
}

// mean[0 .. experts) = mean over `tokens` rows of scores / sum(scores), summed in fixed blocks of rows.
template <class A>
void mean_score(A* mean, const A* scores, int64_t tokens, int64_t experts) {
  constexpr int64_t kBlocks = 16, kSlice = 128;
  const int64_t blocks = std::min(kBlocks, tokens);
  for (int64_t begin = 0; begin < experts; begin += kSlice) {
    const int64_t n = std::min(kSlice, experts - begin);
    alignas(64) A part[kBlocks * kSlice] = {};
    A* parts = part;
    for_blocks(blocks, tokens, tokens * experts, [=](int64_t b, int64_t first, int64_t last) {
      A* sum = parts + b * kSlice;
      for (int64_t t = first; t < last; ++t) {
        const A* s = scores + t * experts;
        const A inverse = inverse_sum(s, experts);
#pragma omp simd
        for (int64_t e = 0; e < n; ++e) sum[e] += s[begin + e] * inverse;
      }
    });
    for (int64_t e = 0; e < n; ++e) {
      double sum = 0;
      for (int64_t b = 0; b < blocks; ++b) sum += part[b * kSlice + e];
      mean[begin + e] = static_cast<A>(sum / static_cast<double>(std::max<int64_t>(tokens, 1)));
    }
  }
}

// One segment: P and the counts of its assignments give the loss, and d loss / d P replaces the counts.
struct Segment {
  int64_t experts;
  double assignments;  // tokens * top_k
};

// With `excess` the shares of other assignments stand in for the counts.
template <class A>
double switch_loss(A* slope, const A* p, const A* excess, Segment s) {
  const double experts = static_cast<double>(s.experts), scale = experts / std::max(s.assignments, 1.0);
  double loss = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    const double f =
        excess ? 1 + experts * static_cast<double>(excess[e]) : scale * static_cast<double>(slope[e]);
    loss += f * static_cast<double>(p[e]);
    slope[e] = static_cast<A>(f);
  }
  return loss;
}

template <class A>
double kl_loss(A* slope, const A* p, Segment s) {
  const double experts = static_cast<double>(s.experts);
  double mean_log = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    const double q = std::max(static_cast<double>(p[e]), kLeastMean);
    mean_log += std::log(q) / experts;
    slope[e] = static_cast<A>(-1 / (experts * q));
  }
  return -std::log(experts) - mean_log;
}

template <class A>
double cv_loss(A* slope, const A* p, Segment s) {
  const double experts = static_cast<double>(s.experts);
  double mean = 0, variance = 0;
  for (int64_t e = 0; e < s.experts; ++e) mean += static_cast<double>(p[e]) / experts;
  mean = std::max(mean, kLeastMean);
  for (int64_t e = 0; e < s.experts; ++e) {
    const double off = static_cast<double>(p[e]) - mean;
    variance += off * off / experts;
  }
  for (int64_t e = 0; e < s.experts; ++e) {
    const double off = static_cast<double>(p[e]) - mean;
    slope[e] = static_cast<A>(2 / (experts * mean * mean) * (off - variance / mean));
  }
  return variance / (mean * mean);
}

template <class A>
double entropy_loss(A* slope, const A* p, Segment s) {
  // With one expert there is nothing to balance (and log E = 0).
  const double inverse = s.experts > 1 ? 1 / std::log(static_cast<double>(s.experts)) : 0;
  double loss = s.experts > 1 ? 1 : 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    const double q = static_cast<double>(p[e]), log_q = std::log(std::max(q, kLeastMean));
    loss += inverse * q * log_q;
    slope[e] = static_cast<A>(inverse * (log_q + 1));
  }
  return loss;
}

template <class A>
double loss_of(BalanceKind kind, A* slope, const A* p, const A* excess, Segment s) {
  switch (kind) {
    case BalanceKind::kSwitch: return switch_loss(slope, p, excess, s);
    case BalanceKind::kKl: return kl_loss(slope, p, s);
    case BalanceKind::kCv: return cv_loss(slope, p, s);
    case BalanceKind::kEntropy: return entropy_loss(slope, p, s);
  }
  return 0;
}

}  // namespace

template <class A>
void run(Cpu, const BalanceForward<A>& a) {
  *a.loss = 0;
  std::fill_n(a.dmean, a.segments * a.experts, A(0));
  std::fill_n(a.mean, a.segments * a.experts, A(0));
  if (a.tokens == 0) return;
  CHECK(a.tokens % a.segments == 0, "tokens: ", a.tokens, ", segments: ", a.segments);
  const int64_t tokens = a.tokens / a.segments;
  const double coeff = static_cast<double>(a.coeff) / static_cast<double>(a.segments);
  double loss = 0;
  for (int64_t s = 0; s < a.segments; ++s) {
    A *mean = a.mean + s * a.experts, *slope = a.dmean + s * a.experts;
    mean_score(mean, a.scores + s * tokens * a.experts, tokens, a.experts);
    for (int64_t p = s * tokens * a.top_k; p < (s + 1) * tokens * a.top_k; ++p) slope[a.expert[p]] += 1;
    loss +=
        coeff * loss_of(a.kind, slope, mean, a.excess, {a.experts, static_cast<double>(tokens * a.top_k)});
    for (int64_t e = 0; e < a.experts; ++e) slope[e] *= static_cast<A>(coeff);
  }
  *a.loss = static_cast<A>(loss);
}

// p = s / S:   ds = (dp - sum_i dp_i p_i) / S   with dp = *dloss * dmean / (tokens of the segment)
template <class A>
void run(Cpu, const BalanceBackward<A>& a) {
  if (a.tokens == 0) return;
  const int64_t n = a.experts, tokens = a.tokens / a.segments;
  const A scale = *a.dloss / static_cast<A>(tokens);
  for_rows(a.tokens, n, [=](int64_t t) {
    const A *s = a.scores + t * n, *slope = a.dmean + t / tokens * n;
    A* ds = a.dscores + t * n;
    const A inverse = inverse_sum(s, n), mean = dot(slope, s, n) * inverse, factor = scale * inverse;
#pragma omp simd
    for (int64_t e = 0; e < n; ++e) ds[e] = factor * (slope[e] - mean);
  });
}

template <class A>
void run(Cpu, const ZLossForward<A>& a) {
  for_rows(a.tokens, a.experts,
           [=](int64_t t) { a.lse[t] = logsumexp(a.logits + t * a.experts, a.experts); });
  double sum = 0;
  for (int64_t t = 0; t < a.tokens; ++t) sum += static_cast<double>(a.lse[t]) * static_cast<double>(a.lse[t]);
  *a.loss = static_cast<A>(static_cast<double>(a.coeff) * sum /
                           static_cast<double>(std::max<int64_t>(a.tokens, 1)));
}

template <class A>
void run(Cpu, const ZLossBackward<A>& a) {
  if (a.tokens == 0) return;
  const A scale = *a.dloss * 2 * a.coeff / static_cast<A>(a.tokens);
  for_rows(a.tokens, a.experts, [=](int64_t t) {
    const A* z = a.logits + t * a.experts;
    A* dz = a.dlogits + t * a.experts;
    const A lse = a.lse[t], factor = scale * lse;
#pragma omp simd
    for (int64_t e = 0; e < a.experts; ++e) dz[e] = factor * fast_exp(z[e] - lse);
  });
}

#define SWITCHYARD_INSTANTIATE(A)                    \
  template void run(Cpu, const BalanceForward<A>&);  \
  template void run(Cpu, const BalanceBackward<A>&); \
  template void run(Cpu, const ZLossForward<A>&);    \
  template void run(Cpu, const ZLossBackward<A>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
