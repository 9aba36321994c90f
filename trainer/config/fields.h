// Every configuration field, once: its name, its member, what values it takes, and whether it fixes a
// tensor's shape. Reading, writing, checking and comparing are visitors over this list; a new field is one
// line here, one in the schema and one in docs/config.md.
#pragma once

#include <limits>

#include "kernels/norm_rope.h"
#include "kernels/routing.h"
#include "trainer/config.h"

namespace switchyard::config {

// The values a field takes. For repeated fields: each element.
struct Rule {
  enum class Text { kAny, kName, kPrompt };

  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool above = false;  // low itself is excluded
  bool below = false;  // high itself is excluded
  Text text = Text::kAny;
  bool fixes_shape = false;

  // The same, for a field on which a tensor's shape or presence depends.
  constexpr Rule shape() const {
    Rule rule = *this;
    rule.fixes_shape = true;
    return rule;
  }
};

inline constexpr double kMost = 1e15;  // of counts: an int64 and a double hold it exactly
inline constexpr Rule kFree{};
inline constexpr Rule kCount{.low = 0, .high = kMost};
inline constexpr Rule kPositive{.low = 1, .high = kMost};
inline constexpr Rule kNonNegative{.low = 0, .high = 1e30};
inline constexpr Rule kFraction{.low = 0, .high = 1};
inline constexpr Rule kAboveZeroToOne{.low = 0, .high = 1, .above = true};
inline constexpr Rule kBelowOne{.low = 0, .high = 1, .below = true};

constexpr Rule positive(double most) { return {.low = 1, .high = most}; }
constexpr Rule count(double most) { return {.low = 0, .high = most}; }
constexpr Rule above_zero(double most) { return {.low = 0, .high = most, .above = true}; }

template <class Visitor, class Options>
void each_moe_field(Visitor& v, Options& moe) {
  v("num_experts", moe.num_experts, positive(kernels::kMaxExperts).shape());
  v("top_k", moe.top_k, positive(kernels::kMaxExperts));
  v("moe_intermediate_size", moe.moe_intermediate_size, positive(1 << 24).shape());
  v("shared_expert_intermediate_size", moe.shared_expert_intermediate_size, count(1 << 24).shape());
  v("shared_expert_gate", moe.shared_expert_gate, kFree.shape());
  v("score_function", moe.score_function, kFree);
  v("pre_softmax", moe.pre_softmax, kFree);
  v("normalize_topk", moe.normalize_topk, kFree);
  v("topk_scaling_factor", moe.topk_scaling_factor, above_zero(1e6));
  v("num_groups", moe.num_groups, positive(1 << 16));
  v("group_topk", moe.group_topk, positive(1 << 16));
  v("capacity_factor", moe.capacity_factor, count(1e6));
  v("eval_capacity_factor", moe.eval_capacity_factor, count(1e6));
  v("min_capacity", moe.min_capacity, kCount);
  v("pad_to_capacity", moe.pad_to_capacity, kFree);
  v("token_drop_policy", moe.token_drop_policy, kFree);
  v("balance", moe.balance, kFree);
  v("aux_loss_coeff", moe.aux_loss_coeff, kNonNegative);
  v("z_loss_coeff", moe.z_loss_coeff, kNonNegative);
  v("expert_bias", moe.expert_bias, kFree);
  v("bias_update_rate", moe.bias_update_rate, kNonNegative);
  v("jitter_eps", moe.jitter_eps, kBelowOne);
  v("noisy_gate", moe.noisy_gate, kFree);
  v("dense_weight", moe.dense_weight, kBelowOne);
  v("force_balance", moe.force_balance, kFree);
}

template <class Visitor, class Options>
void each_model_field(Visitor& v, Options& model) {
  v("vocab_size", model.vocab_size, count(1 << 26).shape());
  v("hidden_size", model.hidden_size, positive(1 << 20).shape());
  v("num_layers", model.num_layers, positive(1 << 14).shape());
  v("num_attention_heads", model.num_attention_heads, positive(1 << 16).shape());
  v("num_key_value_heads", model.num_key_value_heads, positive(1 << 16).shape());
  v("head_dim", model.head_dim, positive(kernels::kMaxHeadDim).shape());
  v("intermediate_size", model.intermediate_size, count(1 << 24).shape());
  v("rope_theta", model.rope_theta, above_zero(1e30));
  v("partial_rotary_factor", model.partial_rotary_factor, kAboveZeroToOne);
  v("rms_norm_eps", model.rms_norm_eps, above_zero(1));
  v("tie_embeddings", model.tie_embeddings, kFree.shape());
  v("qk_norm", model.qk_norm, kFree.shape());
  v("qkv_bias", model.qkv_bias, kFree.shape());
  v("initializer_range", model.initializer_range, kNonNegative);
  v("expert_initializer_scale", model.expert_initializer_scale, kNonNegative);
  v("recompute", model.recompute, kFree);
  v("mask_documents", model.mask_documents, kFree);
  v("first_dense_layers", model.first_dense_layers, count(1 << 14).shape());
  v("moe_layer_interval", model.moe_layer_interval, positive(1 << 14).shape());
  v("dense_layers", model.dense_layers, count(1 << 14).shape());
  v.group("moe", model.moe, [](auto& inner, auto& moe) { each_moe_field(inner, moe); });
}

template <class Visitor, class Options>
void each_job_field(Visitor& v, Options& c) {
  v.group("parallel", c.parallel, [](auto& in, auto& o) {
    in("expert", o.expert, positive(1 << 16));
    in("expert_tensor", o.expert_tensor, positive(1));
    in("timeout_seconds", o.timeout_seconds, above_zero(1e7));
    in("rebalance_over_steps", o.rebalance_over_steps, kCount);
    in("shadow_pairs", o.shadow_pairs, kCount);
  });
  v.group("train", c.train, [](auto& in, auto& o) {
    in("steps", o.steps, kPositive);
    in("global_batch_size", o.global_batch_size, kPositive);
    in("micro_batch_size", o.micro_batch_size, kPositive);
    in("sequence_length", o.sequence_length, kPositive);
    in("init_from", o.init_from, kFree);
    in("cuda_graphs", o.cuda_graphs, kFree);
  });
  v.group("optimizer", c.optimizer, [](auto& in, auto& o) {
    in("lr", o.lr, kNonNegative);
    in("beta1", o.beta1, kBelowOne);
    in("beta2", o.beta2, kBelowOne);
    in("eps", o.eps, above_zero(1e30));
    in("weight_decay", o.weight_decay, kNonNegative);
    in("clip_norm", o.clip_norm, kNonNegative);
    in("moments", o.moments, kFree);
  });
  v.group("schedule", c.schedule, [](auto& in, auto& o) {
    in("kind", o.kind, kFree);
    in("warmup_steps", o.warmup_steps, kCount);
    in("min_lr_ratio", o.min_lr_ratio, kFraction);
    in("decay_fraction", o.decay_fraction, kAboveZeroToOne);
  });
  v.group("data", c.data, [](auto& in, auto& o) {
    in("train", o.train, kFree);
    in("validation", o.validation, kFree);
    in("shuffle", o.shuffle, kFree);
    in.list("blend", o.blend, [](auto& inner, auto& set) {
      inner("path", set.path, kFree);
      inner("weight", set.weight, above_zero(1e12));
    });
  });
  v.group("eval", c.eval, [](auto& in, auto& o) {
    in("every_steps", o.every_steps, kCount);
    in("batches", o.batches, kCount);
  });
  v.group("checkpoint", c.checkpoint, [](auto& in, auto& o) {
    in("every_steps", o.every_steps, kCount);
    in("keep_last", o.keep_last, kCount);
  });
  v.group("log", c.log, [](auto& in, auto& o) {
    in("every_steps", o.every_steps, kCount);
    in("tensorboard", o.tensorboard, kFree);
  });
  v.group("sample", c.sample, [](auto& in, auto& o) {
    in("every_steps", o.every_steps, kCount);
    in("prompts", o.prompts, Rule{.text = Rule::Text::kPrompt});
    in("max_tokens", o.max_tokens, positive(1 << 24));
    in("temperature", o.temperature, count(1e6));
  });
}

template <class Visitor, class Options>
void each_field(Visitor& v, Options& c) {
  v("name", c.name, Rule{.text = Rule::Text::kName});
  v("seed", c.seed, kFree);
  v("precision", c.precision, kFree);
  v("device", c.device, kFree);
  v("threads", c.threads, count(4096));
  v.group("model", c.model, [](auto& inner, auto& model) { each_model_field(inner, model); });
  each_job_field(v, c);
}

}  // namespace switchyard::config
