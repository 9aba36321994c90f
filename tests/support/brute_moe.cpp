#include "tests/support/brute_moe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchyard::test {

namespace {

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

Vector softmax(const Vector& z) {
  Vector p;
  for (const double v : z) p.push_back(std::exp(v));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

// Indices by falling value; equal ones in order.
std::vector<int> ranked(const Vector& values) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
  return order;
}

void add_scaled(Vector& to, double factor, const Vector& x) {
  for (size_t i = 0; i < x.size(); ++i) to[i] += factor * x[i];
}

}  // namespace

Vector BruteMoe::product(const std::string& weight, const Vector& x) const {
  const Vector& w = weights.at(weight);
  Vector y(w.size() / x.size(), 0.0);
  for (size_t i = 0; i < w.size(); ++i) y[i / x.size()] += w[i] * x[i % x.size()];
  return y;
}

Vector BruteMoe::feed_forward(const std::string& prefix, const Vector& x) const {
  Vector h = product(prefix + "gate_proj.weight", x);
  const Vector up = product(prefix + "up_proj.weight", x);
  for (size_t i = 0; i < h.size(); ++i) h[i] *= sigmoid(h[i]) * up[i];
  return product(prefix + "down_proj.weight", h);
}

// Those of the best groups; a group is as good as its best top_k / group_topk experts together.
std::vector<int> BruteMoe::allowed_experts(const Vector& preference) const {
  const auto size = static_cast<size_t>(options.num_experts / options.num_groups);
  Vector group_score;
  for (size_t begin = 0; begin < preference.size(); begin += size) {
    Vector group(preference.begin() + static_cast<int64_t>(begin),
                 preference.begin() + static_cast<int64_t>(begin + size));
    std::sort(group.rbegin(), group.rend());
    group_score.push_back(
        std::accumulate(group.begin(), group.begin() + options.top_k / options.group_topk, 0.0));
  }
  std::vector<int> groups = ranked(group_score);
  groups.resize(static_cast<size_t>(options.group_topk));
  std::vector<int> experts;
  for (const int e : ranked(preference)) {
    if (std::count(groups.begin(), groups.end(), e / static_cast<int>(size)) > 0) experts.push_back(e);
  }
  return experts;
}

BruteMoe::Choice BruteMoe::choose(const std::vector<Vector>& x, size_t token) const {
  const MoeOptions& o = options;
  const bool soft = o.score_function == kernels::ScoreFunction::kSoftmax;
  Choice c;
  c.logits = product("gate.weight", x[token]);
  if (o.noisy_gate && !noise.empty()) {
    const Vector spread = product("gate.noise_weight", x[token]);
    for (size_t e = 0; e < spread.size(); ++e)
      c.logits[e] += noise[token][e] * std::log(1 + std::exp(spread[e]));
  }
  c.scores = c.logits;
  if (soft) {
    c.scores = softmax(c.logits);
  } else {
    for (double& s : c.scores) s = sigmoid(s);
  }
  Vector preference = c.scores;
  if (!bias.empty()) add_scaled(preference, 1, bias);
  c.expert = o.num_groups > 1 ? allowed_experts(preference) : ranked(preference);
  c.expert.resize(static_cast<size_t>(o.top_k));
  Vector logits;
  for (const int e : c.expert) {
    c.weight.push_back(c.scores[e]);
    logits.push_back(c.logits[e]);
  }
  const double sum = std::accumulate(c.weight.begin(), c.weight.end(), 0.0);
  if (soft && !o.pre_softmax) {
    c.weight = softmax(logits);
  } else if (o.normalize_topk) {
    for (double& w : c.weight) w /= sum;
  }
  for (double& w : c.weight) w *= o.topk_scaling_factor;
  return c;
}

// Every expert in turn keeps the first `capacity` pairs of its list, sorted as the policy says.
void BruteMoe::drop(std::vector<Choice>& choices) const {
  const auto tokens = static_cast<double>(choices.size());
  const double even = tokens * static_cast<double>(options.top_k) * options.capacity_factor;
  const auto capacity =
      std::max<size_t>(static_cast<size_t>(options.min_capacity),
                       static_cast<size_t>(std::ceil(even / static_cast<double>(options.num_experts))));
  struct Pair {
    size_t token, slot;
    double weight;
  };
  for (int e = 0; e < options.num_experts; ++e) {
    std::vector<Pair> pairs;
    for (size_t slot = 0; slot < static_cast<size_t>(options.top_k); ++slot) {
      for (size_t t = 0; t < choices.size(); ++t) {
        if (choices[t].expert[slot] == e) pairs.push_back({t, slot, choices[t].weight[slot]});
      }
    }
    if (options.token_drop_policy == kernels::DropPolicy::kProbs) {
      std::stable_sort(pairs.begin(), pairs.end(),
                       [](const Pair& a, const Pair& b) { return a.weight > b.weight; });
    }
    for (size_t i = capacity; i < pairs.size(); ++i) choices[pairs[i].token].expert[pairs[i].slot] = -1;
  }
}

// Of one segment, without the coefficient.
double BruteMoe::balance(const std::vector<Choice>& choices, Balance kind) const {
  const auto experts = static_cast<double>(options.num_experts), tokens = static_cast<double>(choices.size());
  Vector mean(static_cast<size_t>(options.num_experts), 0.0), share = mean;
  for (const Choice& c : choices) {
    add_scaled(mean, 1 / (tokens * std::accumulate(c.scores.begin(), c.scores.end(), 0.0)), c.scores);
    for (const int e : c.expert) share[e] += 1 / (tokens * static_cast<double>(options.top_k));
  }
  for (size_t e = 0; kind == Balance::kGlobal && e < share.size(); ++e) share[e] = 1 / experts + excess[e];
  double product = 0, logs = 0, squares = 0, entropy = 0;
  for (size_t e = 0; e < mean.size(); ++e) {
    product += share[e] * mean[e];
    logs += std::log(mean[e]) / experts;
    squares += (mean[e] - 1 / experts) * (mean[e] - 1 / experts) / experts;
    entropy -= mean[e] * std::log(mean[e]);
  }
  switch (kind) {
    case Balance::kAux:
    case Balance::kGlobal:
    case Balance::kSequence: return experts * product;
    case Balance::kKl: return -std::log(experts) - logs;
    case Balance::kCv: return squares * experts * experts;
    case Balance::kEntropy: return 1 - entropy / std::log(experts);
  }
  return 0;
}

BruteMoe::Output BruteMoe::operator()(const std::vector<Vector>& x, int64_t sequences) const {
  Output out;
  for (size_t t = 0; t < x.size(); ++t) out.choices.push_back(choose(x, t));
  out.before_drops = out.choices;
  if (options.capacity_factor > 0) drop(out.choices);
  for (size_t t = 0; t < x.size(); ++t) {
    Vector y(x[t].size(), 0.0);
    const Choice& c = out.choices[t];
    for (size_t j = 0; j < c.expert.size(); ++j) {
      if (c.expert[j] >= 0)
        add_scaled(y, c.weight[j], feed_forward("experts." + std::to_string(c.expert[j]) + ".", x[t]));
    }
    if (options.shared_expert_intermediate_size > 0) {
      const double gate =
          options.shared_expert_gate ? sigmoid(product("shared_expert_gate.weight", x[t])[0]) : 1;
      add_scaled(y, gate, feed_forward("shared_expert.", x[t]));
    }
    if (options.dense_weight > 0) {
      for (double& v : y) v *= 1 - options.dense_weight;
      add_scaled(y, options.dense_weight, feed_forward("dense.", x[t]));
    }
    out.y.push_back(y);
    const Vector p = softmax(c.logits);
    const double log_sum = c.logits[0] - std::log(p[0]);
    out.losses += options.z_loss_coeff * log_sum * log_sum / static_cast<double>(x.size());
  }
  for (const Balance kind : options.balance) {
    const int64_t segments = kind == Balance::kSequence ? sequences : 1;
    const auto length = static_cast<int64_t>(x.size()) / segments;
    for (int64_t s = 0; s < segments; ++s) {
      const auto begin = out.before_drops.begin() + s * length;
      out.losses +=
          options.aux_loss_coeff / static_cast<double>(segments) * balance({begin, begin + length}, kind);
    }
  }
  return out;
}

}  // namespace switchyard::test
