#include "kernels/routing.h"

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/softmax.h"

namespace switchyard::kernels {
namespace {

template <class A>
constexpr A kTaken = -std::numeric_limits<A>::infinity();

// What a token's experts are ranked by, s + bias. NaN and -inf rank lowest but stay above kTaken: a choice is
// valid whatever the logits.
template <class A>
void rank(A* key, const A* scores, const A* bias, int64_t n) {
  constexpr A kLowest = std::numeric_limits<A>::lowest();
#pragma omp simd
  for (int64_t e = 0; e < n; ++e) {
    const A k = bias ? scores[e] + bias[e] : scores[e];
    key[e] = k > kLowest ? k : kLowest;
  }
}

// The index of the largest key, the lowest index among equals; that key is taken out. Two plain reductions,
// because they become vector code and one search for the place does not.
template <class A>
int32_t take_largest(A* key, int32_t n, A* value = nullptr) {
  A top = kTaken<A>;
#pragma omp simd reduction(max : top)
  for (int32_t e = 0; e < n; ++e) top = key[e] > top ? key[e] : top;
  int32_t place = n - 1;
#pragma omp simd reduction(min : place)
  for (int32_t e = 0; e < n; ++e) {
    const int32_t here = key[e] == top ? e : n;
    place = here < place ? here : place;
  }
  key[place] = kTaken<A>;
  if (value) *value = top;
  return place;
}

// Takes out the keys of all groups but the best ones. A group's score is the sum of its `best` largest keys.
template <class A>
void keep_best_groups(A* key, const RouteRule& rule) {
  const int32_t groups = static_cast<int32_t>(rule.num_groups),
                size = static_cast<int32_t>(rule.experts) / groups;
  const int64_t best = std::clamp<int64_t>(rule.top_k / rule.group_topk, 1, size);
  A score[kMaxExperts], rest[kMaxExperts];
  std::copy_n(key, rule.experts, rest);
  for (int32_t g = 0; g < groups; ++g) {
    A sum = 0, value = 0;
    for (int64_t i = 0; i < best; ++i) {
      take_largest(rest + g * size, size, &value);
      sum += value;
    }
    score[g] = std::max(sum, std::numeric_limits<A>::lowest());
  }
  for (int64_t i = 0; i < rule.group_topk; ++i) take_largest(score, groups);
  for (int32_t g = 0; g < groups; ++g)
    if (score[g] != kTaken<A>) std::fill_n(key + g * size, size, kTaken<A>);
}

// expert[0 .. top_k) of one token.
template <class A>
void choose(int32_t* expert, const A* scores, const A* bias, const RouteRule& rule) {
  A key[kMaxExperts];
  rank(key, scores, bias, rule.experts);
  if (rule.num_groups > 1) keep_best_groups(key, rule);
  for (int64_t j = 0; j < rule.top_k; ++j) expert[j] = take_largest(key, static_cast<int32_t>(rule.experts));
}

template <class A>
void weigh(A* weight, const A* scores, const A* logits, const int32_t* expert, const RouteRule& rule) {
  const int64_t k = rule.top_k;
  const bool post_softmax = rule.score == ScoreFunction::kSoftmax && !rule.pre_softmax;
  A top = -std::numeric_limits<A>::infinity(), sum = rule.score == ScoreFunction::kSigmoid ? A(kTiny) : A(0);
  for (int64_t j = 0; j < k; ++j) top = std::max(top, logits[expert[j]]);
  for (int64_t j = 0; j < k; ++j) {
    weight[j] = post_softmax ? fast_exp(logits[expert[j]] - top) : scores[expert[j]];
    sum += weight[j];
  }
  const A factor = post_softmax || rule.normalize ? rule.scaling / sum : rule.scaling;
  for (int64_t j = 0; j < k; ++j) weight[j] *= factor;
}

// -sum p log p with p = s / sum(s); 0 log 0 = 0
template <class A>
A entropy_of(const A* s, int64_t n) {
  const A inverse = 1 / sum_of_row(s, n);
  A entropy = 0;
#pragma omp simd reduction(+ : entropy)
  for (int64_t i = 0; i < n; ++i) {
    const A p = s[i] * inverse;
    const A term = p * fast_log(p);
    entropy -= p < std::numeric_limits<A>::min() ? A(0) : term;
  }
  return entropy;
}

template <class A>
void route(const RouteForward<A>& a, int64_t t) {
  const int64_t n = a.rule.experts, k = a.rule.top_k;
  A* scores = a.scores + t * n;
  const A* logits = a.logits + t * n;
  int32_t* expert = a.expert + t * k;
  if (a.rule.score == ScoreFunction::kSoftmax) {
    softmax_row(scores, logits, n);
  } else {
#pragma omp simd
    for (int64_t e = 0; e < n; ++e) scores[e] = sigmoid(logits[e]);
  }
  if (a.rule.force_balance) {
    for (int64_t j = 0; j < k; ++j) expert[j] = static_cast<int32_t>((t * k + j) % n);
  } else {
    choose(expert, scores, a.bias, a.rule);
  }
  weigh(a.weight + t * k, scores, logits, expert, a.rule);
  if (a.entropy) a.entropy[t] = entropy_of(scores, n);
}

// The gradient of the weights w = scaling * v reaches the chosen experts' u (their scores, or their logits if
// the softmax is over the chosen):
//   v = u / S:                     du = (dv - sum_i dv_i v_i) / S
//   v = softmax(z of the chosen):  dz = v (dv - sum_i dv_i v_i)
template <class A>
void add_weight_gradient(A* out, const RouteBackward<A>& a, int64_t t) {
  const RouteRule& rule = a.rule;
  const int64_t k = rule.top_k;
  const A *dweight = a.dweight + t * k, *weight = a.weight + t * k, *scores = a.scores + t * rule.experts;
  const int32_t* expert = a.expert + t * k;
  const A scaling = rule.scaling, unscale = scaling != 0 ? 1 / scaling : A(0);
  const bool post_softmax = rule.score == ScoreFunction::kSoftmax && !rule.pre_softmax;
  A mean = 0, sum = rule.score == ScoreFunction::kSigmoid ? A(kTiny) : A(0);
  for (int64_t j = 0; j < k; ++j) mean += dweight[j] * weight[j];  // dv v = (dw scaling)(w / scaling)
  for (int64_t j = 0; j < k; ++j) sum += scores[expert[j]];
  for (int64_t j = 0; j < k; ++j) {
    const A dv = dweight[j] * scaling;
    if (post_softmax)
      out[expert[j]] += weight[j] * unscale * (dv - mean);
    else if (rule.normalize)
      out[expert[j]] += (dv - mean) / sum;
    else
      out[expert[j]] += dv;
  }
}

// out = the gradient of the scores on entry, of the logits on return.
template <class A>
void score_backward(A* out, const A* s, const RouteRule& rule) {
  const int64_t n = rule.experts;
  if (rule.score == ScoreFunction::kSoftmax) {
    const A mean = dot(out, s, n);
#pragma omp simd
    for (int64_t e = 0; e < n; ++e) out[e] = s[e] * (out[e] - mean);
  } else {
#pragma omp simd
    for (int64_t e = 0; e < n; ++e) out[e] *= s[e] * (1 - s[e]);
  }
}

template <class A>
void route_backward(const RouteBackward<A>& a, int64_t t) {
  const int64_t n = a.rule.experts;
  const bool post_softmax = a.rule.score == ScoreFunction::kSoftmax && !a.rule.pre_softmax;
  A* out = a.dlogits + t * n;
  if (a.dscores)
    std::copy_n(a.dscores + t * n, n, out);
  else
    std::fill_n(out, n, A(0));
  if (a.dweight && !post_softmax) add_weight_gradient(out, a, t);
  if (a.dscores || !post_softmax) score_backward(out, a.scores + t * n, a.rule);
  if (a.dweight && post_softmax) add_weight_gradient(out, a, t);
}

}  // namespace

template <class A>
void run(Cpu, const RouteForward<A>& a) {
  a.rule.check();
  for_rows(a.tokens, a.rule.experts, [=](int64_t t) { route(a, t); });
}

template <class A>
void run(Cpu, const RouteBackward<A>& a) {
  for_rows(a.tokens, a.rule.experts, [=](int64_t t) { route_backward(a, t); });
}

#define SWITCHYARD_INSTANTIATE(A)                 \
  template void run(Cpu, const RouteForward<A>&); \
  template void run(Cpu, const RouteBackward<A>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
