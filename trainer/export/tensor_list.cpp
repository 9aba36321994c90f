#include "trainer/export/tensor_list.h"

#include <algorithm>

#include "kernels/check.h"

namespace switchyard {
namespace {

using Visit = std::function<void(const TensorSpec&)>;

void feed_forward(const std::string& prefix, int64_t hidden, int64_t intermediate, const Visit& visit) {
  visit({prefix + "gate_proj.weight", {intermediate, hidden}});
  visit({prefix + "up_proj.weight", {intermediate, hidden}});
  visit({prefix + "down_proj.weight", {hidden, intermediate}});
}

void attention(const std::string& prefix, const ModelOptions& o, const Visit& visit) {
  const int64_t q = o.num_attention_heads * o.head_dim, kv = o.num_key_value_heads * o.head_dim;
  visit({prefix + "q_proj.weight", {q, o.hidden_size}});
  visit({prefix + "k_proj.weight", {kv, o.hidden_size}});
  visit({prefix + "v_proj.weight", {kv, o.hidden_size}});
  visit({prefix + "o_proj.weight", {o.hidden_size, q}});
  if (o.qkv_bias) {
    visit({prefix + "q_proj.bias", {q}});
    visit({prefix + "k_proj.bias", {kv}});
    visit({prefix + "v_proj.bias", {kv}});
  }
  if (o.qk_norm == QkNorm::kNone) return;
  const bool whole = o.qk_norm == QkNorm::kWhole;
  visit({prefix + "q_norm.weight", {whole ? q : o.head_dim}});
  visit({prefix + "k_norm.weight", {whole ? kv : o.head_dim}});
}

void moe(const std::string& prefix, const ModelOptions& o, const Visit& visit) {
  const MoeOptions& m = *o.moe;
  visit({prefix + "gate.weight", {m.num_experts, o.hidden_size}});
  if (m.noisy_gate) visit({prefix + "gate.noise_weight", {m.num_experts, o.hidden_size}, true});
  if (m.expert_bias) visit({prefix + "gate.e_score_correction_bias", {m.num_experts}});
  if (std::find(m.balance.begin(), m.balance.end(), Balance::kGlobal) != m.balance.end())
    visit({prefix + "gate.load_excess", {m.num_experts}, true});
  for (int64_t e = 0; e < m.num_experts; ++e)
    feed_forward(concat(prefix, "experts.", e, "."), o.hidden_size, m.moe_intermediate_size, visit);
  if (m.shared_expert_intermediate_size > 0) {
    feed_forward(prefix + "shared_expert.", o.hidden_size, m.shared_expert_intermediate_size, visit);
    if (m.shared_expert_gate) visit({prefix + "shared_expert_gate.weight", {1, o.hidden_size}});
  }
  if (m.dense_weight > 0) feed_forward(prefix + "dense.", o.hidden_size, o.intermediate_size, visit);
}

// Not a parameter: nothing trains it.
bool is_state(const std::string& name) {
  return name.ends_with("e_score_correction_bias") || name.ends_with("load_excess");
}

}  // namespace

void for_each_tensor(const ModelOptions& o, const Visit& visit) {
  visit({"model.embed_tokens.weight", {o.vocab_size, o.hidden_size}});
  for (int64_t layer = 0; layer < o.num_layers; ++layer) {
    const std::string prefix = concat("model.layers.", layer, ".");
    visit({prefix + "input_layernorm.weight", {o.hidden_size}});
    attention(prefix + "self_attn.", o, visit);
    visit({prefix + "post_attention_layernorm.weight", {o.hidden_size}});
    if (o.is_moe(layer))
      moe(prefix + "mlp.", o, visit);
    else
      feed_forward(prefix + "mlp.", o.hidden_size, o.intermediate_size, visit);
  }
  visit({"model.norm.weight", {o.hidden_size}});
  if (!o.tie_embeddings) visit({"lm_head.weight", {o.vocab_size, o.hidden_size}});
}

ParameterCount count_parameters(const ModelOptions& o) {
  ParameterCount count;
  int64_t experts = 0;
  for_each_tensor(o, [&](const TensorSpec& tensor) {
    int64_t size = 1;
    for (const int64_t n : tensor.shape) size *= n;
    if (is_state(tensor.name)) return;
    count.total += size;
    if (tensor.name.find(".mlp.experts.") != std::string::npos) experts += size;
  });
  count.active = count.total;
  if (o.moe) count.active -= experts / o.moe->num_experts * (o.moe->num_experts - o.moe->top_k);
  return count;
}

bool is_weight(const std::string& name) {
  return !name.starts_with("adam_m.") && !name.starts_with("adam_v.");
}

}  // namespace switchyard
