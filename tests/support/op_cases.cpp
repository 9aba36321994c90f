#include "tests/support/op_cases.h"

#include <memory>

namespace switchyard::test {

namespace {

using kernels::BalanceKind;
using kernels::RouteRule;
using kernels::ScoreFunction;

kernels::AttentionShape attention_shape(int64_t batch, int64_t seq, int64_t heads, int64_t kv_heads,
                                        int64_t dim) {
  return {batch, seq, heads, kv_heads, dim, 0.35f};
}

// Wider than x where that is bf16, so it is no input of the case: tests/gpu/ops_test.cpp has its gradient.
Var mixed_linear_case(const Vars& v) {
  const Tensor w = Tensor::from<float>(
      {.3f, -1, .7f, 2, -.1f, 1.1f, .9f, -.6f, .2f, -1.3f, .8f, 0, 1.7f, -.4f, .5f}, {3, 5}, v[0].device());
  return mixed_linear(v[0], Var(cast(Var(w), acc_of(v[0].dtype())).value()));
}

RowGroups groups_of(std::vector<int64_t> offsets, Device device) {
  auto host = std::make_shared<const std::vector<int64_t>>(std::move(offsets));
  return {Tensor::from(*host, {static_cast<int64_t>(host->size())}, device), host};
}

Var rope_case(Var x, int64_t rotary, const Var& q_weight = {}, const Var& k_weight = {}) {
  const auto shape = attention_shape(2, 5, 2, 1, 6);
  const RopeTable table = make_rope_table(8, rotary, 100, x.dtype(), x.device());
  return norm_rope(std::move(x), q_weight, k_weight, table, shape, 1e-6);
}

Var attention_case(const Vars& v, const kernels::AttentionShape& shape,
                   const std::vector<int32_t>& documents) {
  Tensor d;
  if (!documents.empty())
    d = Tensor::from(documents, {static_cast<int64_t>(documents.size())}, v[0].device());
  return attention(v[0], shape, d);
}

// Weights and scores side by side, so that both get a gradient.
Var route_case(const Vars& v, RouteRule rule) {
  const Routing r = route(v[0], {}, rule);
  return join_columns({r.weight, r.scores});
}

Var balance_case(const Vars& v, BalanceKind kind, int64_t segments) {
  const Routing r = route(v[0], {}, {.experts = 5, .top_k = 2, .pre_softmax = true});
  return balance_loss(r.scores, r.expert, kind, segments, 0.7);
}

Var global_balance_case(const Vars& v) {
  const Routing r = route(v[0], {}, {.experts = 5, .top_k = 2, .pre_softmax = true});
  const Tensor excess = Tensor::from<float>({.25f, -.125f, 0, -.1875f, .0625f}, {5}, v[0].device());
  return balance_loss(r.scores, r.expert, BalanceKind::kSwitch, 1, 0.7,
                      cast(Var(excess), v[0].dtype()).value());
}

Var embedding_case(const Vars& v, const std::vector<int32_t>& ids) {
  const SortedIds sorted = sort_ids(ids, v[0].dim(0));
  const auto on_device = [&](const std::vector<int32_t>& values) {
    return Tensor::from(values, {std::ssize(values)}, v[0].device());
  };
  return embedding(v[0], {on_device(ids), on_device(sorted.ids), on_device(sorted.order)});
}

Var cross_entropy_case(const Vars& v, const std::vector<int32_t>& targets) {
  const Tensor on_device = Tensor::from(targets, {std::ssize(targets)}, v[0].device());
  return linear_cross_entropy(v[0], v[1], on_device, 0.25).loss;
}

Var gate_noise_case(const Vars& v) {
  const Tensor noise = Tensor::from<float>({1.5f, -.25f, 0, -2, .5f, .75f, -1, 3}, {2, 4}, v[0].device());
  return add_gate_noise(v[0], v[1], cast(Var(noise), v[0].dtype()).value());
}

SortedPairs pairs_of(Device device) {
  // Six tokens, two choices, four experts; expert 2 is empty and two pairs are dropped.
  const std::vector<int32_t> expert{3, 0, 1, -1, 0, 3, 3, 1, -1, 0, 0, 1};
  return sort_by_expert(Tensor::from(expert, {6, 2}, device), 4);
}

Var permute_case(const Vars& v) { return permute(v[0], pairs_of(v[0].device()), 10); }
Var combine_case(const Vars& v) { return combine(v[0], v[1], pairs_of(v[0].device())); }

}  // namespace

const std::vector<OpCase>& op_cases() {
  static const std::vector<OpCase> cases{
      {"linear", {{3, 5}, {4, 5}}, [](const Vars& v) { return linear(v[0], v[1]); }},
      {"linear_bias", {{3, 5}, {4, 5}, {4}}, [](const Vars& v) { return linear(v[0], v[1], v[2]); }},
      {"mixed_linear", {{4, 5}}, mixed_linear_case},
      {"grouped_linear",
       {{7, 5}, {3, 4, 5}},
       [](const Vars& v) {
         return grouped_linear(v[0], {v[1]}, groups_of({0, 4, 4, 7}, v[0].device()));
       }},
      {"grouped_linear_of_two_stacks",
       {{9, 5}, {2, 4, 5}, {2, 4, 5}},
       [](const Vars& v) {
         return grouped_linear(v[0], {v[1], v[2]}, groups_of({0, 4, 4, 7, 9}, v[0].device()));
       }},
      {"rms_norm", {{4, 6}, {6}}, [](const Vars& v) { return rms_norm(v[0], v[1], 1e-5); }},
      {"add_rms_norm",
       {{4, 6}, {4, 6}, {6}},
       [](const Vars& v) {
         const SumAndNorm r = add_rms_norm(v[0], v[1], v[2], 1e-5);
         return join_columns({r.sum, r.norm});
       }},
      {"add_rms_norm_alone",  // nobody reads the sum
       {{4, 6}, {4, 6}, {6}},
       [](const Vars& v) { return add_rms_norm(v[0], v[1], v[2], 1e-5).norm; }},
      {"swiglu", {{5, 8}}, [](const Vars& v) { return swiglu(v[0]); }},
      {"linear_swiglu", {{5, 3}, {8, 3}}, [](const Vars& v) { return linear_swiglu(v[0], v[1]); }},
      {"grouped_linear_swiglu_of_two_stacks",
       {{9, 3}, {2, 8, 3}, {2, 8, 3}},
       [](const Vars& v) {
         return grouped_linear_swiglu(v[0], {v[1], v[2]}, groups_of({0, 4, 4, 7, 9}, v[0].device()));
       }},
      {"norm_rope", {{10, 24}, {6}, {6}}, [](const Vars& v) { return rope_case(v[0], 6, v[1], v[2]); }},
      {"rope_partial", {{10, 24}}, [](const Vars& v) { return rope_case(v[0], 4); }},
      {"rope_in_place", {{10, 24}}, [](const Vars& v) { return rope_case(add(v[0], v[0]), 6); }},
      {"norm_rope_of_a_result",
       {{10, 24}, {6}, {6}},
       [](const Vars& v) { return rope_case(add(v[0], v[0]), 4, v[1], v[2]); }},
      {"attention",
       {{12, 32}},
       [](const Vars& v) { return attention_case(v, attention_shape(2, 6, 4, 2, 4), {}); }},
      {"attention_documents",
       {{7, 40}},
       [](const Vars& v) {
         return attention_case(v, attention_shape(1, 7, 3, 1, 8), {0, 0, 0, 1, 1, 2, 2});
       }},
      {"embedding",
       {{6, 3}},
       [](const Vars& v) {
         return embedding_case(v, {4, 0, 4, 5, 1, 4});
       }},
      {"linear_cross_entropy",
       {{5, 4}, {7, 4}},
       [](const Vars& v) {
         return cross_entropy_case(v, {3, 0, -1, 6, 3});
       }},
      {"linear_cross_entropy_of_tiles",  // rows that tensor cores take; a vocabulary that is no multiple of 8
       {{5, 16}, {13, 16}},
       [](const Vars& v) {
         return cross_entropy_case(v, {3, 12, -1, 6, 0});
       }},
      {"axpby", {{3, 3}, {3, 3}}, [](const Vars& v) { return axpby(v[0], v[1], 0.3, -1.7); }},
      {"multiply",
       {{3, 5}},
       [](const Vars& v) {
         const Tensor factors =
             cast(Var(Tensor::from<float>({2, -1, .5f, 0, 3, 1, 1, 4, -2, 7, .25f, 1, 2, 3, 5}, {3, 5},
                                          v[0].device())),
                  v[0].dtype())
                 .value();
         return multiply(v[0], factors);
       }},
      {"add_to_itself", {{3, 3}}, [](const Vars& v) { return add(v[0], add(v[0], v[0])); }},
      {"sigmoid_gate", {{4, 5}, {4, 1}}, [](const Vars& v) { return sigmoid_gate(v[0], v[1]); }},
      {"columns", {{4, 5}}, [](const Vars& v) { return columns(v[0], 1, 3); }},
      {"join_columns",
       {{4, 2}, {4, 3}},
       [](const Vars& v) {
         return join_columns({v[0], v[1]});
       }},
      {"gate_noise", {{2, 4}, {2, 4}}, gate_noise_case, 1e-7, true},
      {"route_post_softmax",
       {{6, 5}},
       [](const Vars& v) { return route_case(v, {.experts = 5, .top_k = 2}); },
       1e-6,
       true},
      {"route_pre_softmax",
       {{6, 5}},
       [](const Vars& v) { return route_case(v, {.experts = 5, .top_k = 2, .pre_softmax = true}); },
       1e-6,
       true},
      {"route_normalized",
       {{6, 5}},
       [](const Vars& v) {
         return route_case(
             v, {.experts = 5, .top_k = 3, .pre_softmax = true, .normalize = true, .scaling = 2.5f});
       },
       1e-6,
       true},
      {"route_sigmoid",
       {{6, 6}},
       [](const Vars& v) {
         return route_case(v, {.experts = 6,
                               .top_k = 2,
                               .score = ScoreFunction::kSigmoid,
                               .normalize = true,
                               .num_groups = 3,
                               .group_topk = 2});
       },
       1e-6,
       true},
      {"balance_switch",
       {{6, 5}},
       [](const Vars& v) { return balance_case(v, BalanceKind::kSwitch, 1); },
       1e-6,
       true},
      {"balance_sequence",
       {{6, 5}},
       [](const Vars& v) { return balance_case(v, BalanceKind::kSwitch, 3); },
       1e-6,
       true},
      {"balance_kl",
       {{6, 5}},
       [](const Vars& v) { return balance_case(v, BalanceKind::kKl, 1); },
       1e-6,
       true},
      {"balance_cv",
       {{6, 5}},
       [](const Vars& v) { return balance_case(v, BalanceKind::kCv, 1); },
       1e-6,
       true},
      {"balance_entropy",
       {{6, 5}},
       [](const Vars& v) { return balance_case(v, BalanceKind::kEntropy, 2); },
       1e-6,
       true},
      {"balance_global", {{6, 5}}, global_balance_case, 1e-6, true},
      {"z_loss", {{6, 5}}, [](const Vars& v) { return z_loss(v[0], 0.3); }, 1e-6, true},
      {"permute", {{6, 3}}, permute_case},
      {"combine", {{10, 3}, {6, 2}}, combine_case, 1e-7, true},
      {"unpermute", {{10, 3}}, [](const Vars& v) { return unpermute(v[0], pairs_of(v[0].device())); }},
      {"recompute",
       {{3, 5}, {4, 5}},
       [](const Vars& v) {
         const Var w = v[1];
         return recompute([w](const Vars& x) { return Vars{swiglu(linear(add(x[0], x[0]), w))}; }, {v[0]},
                          {w})[0];
       }},
  };
  return cases;
}

}  // namespace switchyard::test
