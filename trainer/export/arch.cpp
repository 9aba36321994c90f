#include "trainer/export/arch.h"

#include <algorithm>

#include "trainer/files/files.h"

namespace switchyard {
namespace {

using kernels::ScoreFunction;

// Collects the names of the features that stand in the way.
class Obstacles {
 public:
  void add_if(bool blocked, const std::string& feature) {
    if (blocked) found_.push_back(feature);
  }
  std::vector<std::string> take() { return std::move(found_); }

 private:
  std::vector<std::string> found_;
};

std::vector<int64_t> dense_layers(const ModelOptions& o) {
  std::vector<int64_t> dense;
  for (int64_t layer = 0; layer < o.num_layers; ++layer)
    if (!o.is_moe(layer)) dense.push_back(layer);
  return dense;
}

void check_norm(Obstacles& found, QkNorm has, QkNorm wanted) {
  found.add_if(has != wanted && has == QkNorm::kNone, "qk_norm: NONE");
  found.add_if(has != wanted && has == QkNorm::kPerHead, "qk_norm: PER_HEAD");
  found.add_if(has != wanted && has == QkNorm::kWhole, "qk_norm: WHOLE");
}

// What only glm4_moe has.
void check_softmax_router(Obstacles& found, const MoeOptions& m) {
  found.add_if(m.score_function == ScoreFunction::kSigmoid, "score_function: SIGMOID");
  found.add_if(m.expert_bias, "expert_bias");
  found.add_if(m.topk_scaling_factor != 1, "topk_scaling_factor");
  found.add_if(m.num_groups > 1, "num_groups");
}

void check_no_shared(Obstacles& found, const MoeOptions& m) {
  found.add_if(m.shared_expert_intermediate_size > 0, "a shared expert");
}

void check_glm_moe(Obstacles& found, const ModelOptions& o) {
  const MoeOptions& m = *o.moe;
  found.add_if(m.score_function == ScoreFunction::kSoftmax, "score_function: SOFTMAX");
  found.add_if(m.shared_expert_intermediate_size == 0, "no shared expert");
  found.add_if(m.shared_expert_intermediate_size % m.moe_intermediate_size != 0,
               "a shared expert that is no multiple of moe_intermediate_size");
  found.add_if(m.shared_expert_gate, "shared_expert_gate");
  found.add_if(m.num_groups > 1 && m.top_k != 2 * m.group_topk,
               "num_groups with other than two choices a group");
  found.add_if(!o.dense_layers_first(), "dense layers after a MoE layer");
}

void check_moe(Arch arch, Obstacles& found, const ModelOptions& o) {
  const MoeOptions& m = *o.moe;
  found.add_if(m.dense_weight > 0, "dense_weight (the hybrid block)");
  if (arch == Arch::kGlm4Moe) return check_glm_moe(found, o);
  check_softmax_router(found, m);
  if (arch == Arch::kQwen2Moe) {
    found.add_if(m.shared_expert_intermediate_size == 0, "no shared expert");
    found.add_if(m.shared_expert_intermediate_size > 0 && !m.shared_expert_gate,
                 "a shared expert without shared_expert_gate");
  } else {
    check_no_shared(found, m);
  }
  const bool all_moe = arch == Arch::kMixtral || arch == Arch::kOlmoe;
  found.add_if(all_moe && !dense_layers(o).empty(), "dense layers");
  found.add_if(arch == Arch::kMixtral && !is_normalized(m), "normalize_topk: false");
}

bool is_dense_arch(Arch arch) { return arch == Arch::kQwen3 || arch == Arch::kLlama; }

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  return at == text.npos ? text : text.replace(at, from.size(), to);
}

}  // namespace

const std::vector<ArchInfo>& all_archs() {
  static const std::vector<ArchInfo> archs = {
      {Arch::kQwen3Moe, "qwen3_moe", "Qwen3MoeForCausalLM", 4, 1e-6, 1e4, 1},
      {Arch::kMixtral, "mixtral", "MixtralForCausalLM", 8, 1e-5, 1e6, 1},
      {Arch::kQwen2Moe, "qwen2_moe", "Qwen2MoeForCausalLM", 16, 1e-6, 1e4, 1},
      {Arch::kOlmoe, "olmoe", "OlmoeForCausalLM", 0, 1e-5, 1e4, 1},
      {Arch::kGlm4Moe, "glm4_moe", "Glm4MoeForCausalLM", 8, 1e-5, 1e4, 0.5},
      {Arch::kQwen3, "qwen3", "Qwen3ForCausalLM", 32, 1e-6, 1e4, 1},
      {Arch::kLlama, "llama", "LlamaForCausalLM", 0, 1e-6, 1e4, 1},
  };
  return archs;
}

const ArchInfo& info_of(Arch arch) { return all_archs()[static_cast<size_t>(arch)]; }

const ArchInfo* find_arch(std::string_view model_type) {
  for (const ArchInfo& info : all_archs())
    if (model_type == info.model_type) return &info;
  return nullptr;
}

std::string hf_name(Arch arch, const std::string& name) {
  if (arch == Arch::kGlm4Moe) return replaced(name, ".mlp.shared_expert.", ".mlp.shared_experts.");
  if (arch != Arch::kMixtral) return name;
  std::string mixtral = replaced(name, ".mlp.", ".block_sparse_moe.");
  mixtral = replaced(mixtral, ".gate_proj.", ".w1.");
  mixtral = replaced(mixtral, ".down_proj.", ".w2.");
  return replaced(mixtral, ".up_proj.", ".w3.");
}

bool is_normalized(const MoeOptions& moe) {
  return moe.normalize_topk || (moe.score_function == ScoreFunction::kSoftmax && !moe.pre_softmax);
}

std::vector<std::string> obstacles(Arch arch, const ModelOptions& o) {
  Obstacles found;
  if (arch == Arch::kGlm4Moe) {
    found.add_if(o.qk_norm == QkNorm::kWhole, "qk_norm: WHOLE");
  } else {
    const bool per_head = arch == Arch::kQwen3Moe || arch == Arch::kQwen3;
    check_norm(found, o.qk_norm,
               per_head               ? QkNorm::kPerHead
               : arch == Arch::kOlmoe ? QkNorm::kWhole
                                      : QkNorm::kNone);
    found.add_if(o.partial_rotary_factor != 1, "partial_rotary_factor");
    found.add_if(o.qkv_bias && arch != Arch::kQwen2Moe, "qkv_bias");
  }
  found.add_if(arch == Arch::kOlmoe && o.head_dim * o.num_attention_heads != o.hidden_size,
               "head_dim other than hidden_size / num_attention_heads");
  found.add_if(!o.moe && !is_dense_arch(arch), "no MoE layers");
  found.add_if(o.moe && is_dense_arch(arch), "MoE layers");
  if (o.moe && !is_dense_arch(arch)) check_moe(arch, found, o);
  return found.take();
}

Arch choose_arch(const std::string& wanted, std::optional<Arch> preferred, const ModelOptions& options) {
  std::string reasons, fitting;
  if (wanted == "auto" && preferred && obstacles(*preferred, options).empty()) return *preferred;
  for (const ArchInfo& info : all_archs()) {
    const std::vector<std::string> found = obstacles(info.arch, options);
    if (found.empty()) {
      if (wanted == "auto" || wanted == info.model_type) return info.arch;
      fitting += concat(fitting.empty() ? "" : ", ", info.model_type);
    } else if (wanted == "auto" || wanted == info.model_type) {
      reasons += concat(reasons.empty() ? "" : "; ", info.model_type, " cannot hold: ", join(found));
    }
  }
  if (wanted != "auto" && find_arch(wanted) == nullptr)
    fail(Fault::kUsage, "--arch: unknown architecture ", shown(wanted), " for --format hf");
  fail(Fault::kUsage, "export: ", reasons, fitting.empty() ? "" : ". What can hold this model: ", fitting);
}

}  // namespace switchyard
