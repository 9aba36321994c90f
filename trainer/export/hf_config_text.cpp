#include "trainer/export/hf_config.h"
#include "trainer/export/output.h"

namespace switchyard {
namespace {

using nlohmann::json;

// Key by key in the order that a person would read it.
using Text = nlohmann::ordered_json;

void write_moe(Arch arch, const ModelOptions& o, Text& out) {
  const MoeOptions& m = *o.moe;
  const int64_t moe_layers = o.moe_layers();
  Text dense = Text::array();
  for (int64_t layer = 0; layer < o.num_layers; ++layer) {
    if (!o.is_moe(layer) && (layer + 1) % o.moe_layer_interval == 0) dense.push_back(layer);
  }
  const char* experts = arch == Arch::kMixtral   ? "num_local_experts"
                        : arch == Arch::kGlm4Moe ? "n_routed_experts"
                                                 : "num_experts";
  out[experts] = m.num_experts;
  out["num_experts_per_tok"] = m.top_k;
  if (arch == Arch::kMixtral || arch == Arch::kOlmoe)
    out["intermediate_size"] = m.moe_intermediate_size;
  else
    out["moe_intermediate_size"] = m.moe_intermediate_size;
  if (arch != Arch::kMixtral) out["norm_topk_prob"] = is_normalized(m);
  if (arch == Arch::kMixtral) out["router_jitter_noise"] = m.jitter_eps;
  if (arch == Arch::kQwen3Moe || arch == Arch::kQwen2Moe) {
    out["decoder_sparse_step"] = o.moe_layer_interval;
    out["mlp_only_layers"] = dense;
  }
  if (arch == Arch::kQwen2Moe) {
    out["shared_expert_intermediate_size"] = m.shared_expert_intermediate_size;
    out["qkv_bias"] = o.qkv_bias;
  }
  if (arch == Arch::kGlm4Moe) {
    out["n_shared_experts"] = m.shared_expert_intermediate_size / m.moe_intermediate_size;
    out["routed_scaling_factor"] = m.topk_scaling_factor;
    out["n_group"] = m.num_groups;
    out["topk_group"] = m.group_topk;
    out["first_k_dense_replace"] = o.num_layers - moe_layers;
    out["use_qk_norm"] = o.qk_norm == QkNorm::kPerHead;
    out["num_nextn_predict_layers"] = 0;
  } else {
    // Ours is 1 per layer at uniform routing and summed; theirs is top_k for all layers together.
    out["router_aux_loss_coef"] =
        m.aux_loss_coeff * static_cast<double>(moe_layers) / static_cast<double>(m.top_k);
  }
}

void write_attention(Arch arch, const ModelOptions& o, Text& out) {
  out["num_attention_heads"] = o.num_attention_heads;
  out["num_key_value_heads"] = o.num_key_value_heads;
  out["head_dim"] = o.head_dim;
  if (arch != Arch::kMixtral && arch != Arch::kQwen2Moe) out["attention_bias"] = o.qkv_bias;
  out["attention_dropout"] = 0.0;
  out["rope_theta"] = o.rope_theta;
  out["rope_scaling"] = nullptr;
  if (arch == Arch::kGlm4Moe) {
    out["partial_rotary_factor"] = o.partial_rotary_factor;
    out["rope_parameters"] = {{"rope_type", "default"},
                              {"rope_theta", o.rope_theta},
                              {"partial_rotary_factor", o.partial_rotary_factor}};
  }
  if (arch == Arch::kMixtral) out["sliding_window"] = nullptr;
  if (arch == Arch::kQwen2Moe || arch == Arch::kQwen3Moe || arch == Arch::kQwen3)
    out["use_sliding_window"] = false;
  if (arch == Arch::kOlmoe) out["clip_qkv"] = nullptr;
  if (arch == Arch::kLlama) out["mlp_bias"] = false;
}

}  // namespace

std::string hf_config_text(Arch arch, const ModelOptions& o, DType dtype, const json& source) {
  const ArchInfo& info = info_of(arch);
  Text out;
  out["architectures"] = {info.class_name};
  out["model_type"] = info.model_type;
  out["vocab_size"] = o.vocab_size;
  out["hidden_size"] = o.hidden_size;
  out["num_hidden_layers"] = o.num_layers;
  // The width of dense layers, should there be any.
  out["intermediate_size"] = o.intermediate_size > 0 ? o.intermediate_size : o.moe->moe_intermediate_size;
  write_attention(arch, o, out);
  if (o.moe) write_moe(arch, o, out);
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = o.rms_norm_eps;
  out["initializer_range"] = o.initializer_range;
  out["tie_word_embeddings"] = o.tie_embeddings;
  out["max_position_embeddings"] = source.value("max_position_embeddings", json(kDefaultContext));
  out["use_cache"] = true;
  // Written even where there is none: the classes' defaults may lie beyond the vocabulary.
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    out[key] = source.value(key, json());
  out["torch_dtype"] = dtype == DType::kBF16 ? "bfloat16" : "float32";
  return out.dump(2) + "\n";
}

std::string hf_generation_config_text(const json& source) {
  Text out;
  out["_from_model_config"] = true;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (source.contains(key)) out[key] = source[key];
  return out.dump(2) + "\n";
}

}  // namespace switchyard
