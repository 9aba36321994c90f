#include "trainer/export/gguf_arch.h"

#include <algorithm>
#include <optional>

#include "trainer/export/arch.h"
#include "trainer/files/files.h"

namespace switchyard {
namespace {

using kernels::ScoreFunction;

struct GgufName {
  GgufArch arch;
  const char* name;
  const char* hugging_face;  // the nearest model_type
};
// In the order in which "auto" tries them.
constexpr GgufName kNames[] = {{GgufArch::kQwen3Moe, "qwen3moe", "qwen3_moe"},
                               {GgufArch::kLlama, "llama", "mixtral"},
                               {GgufArch::kQwen2Moe, "qwen2moe", "qwen2_moe"},
                               {GgufArch::kGlm4Moe, "glm4moe", "glm4_moe"},
                               {GgufArch::kQwen3, "qwen3", "qwen3"}};

using Found = std::vector<std::string>;

void add_if(Found& found, bool blocked, const char* feature) {
  if (blocked) found.emplace_back(feature);
}

// What only glm4moe has among MoE architectures.
void check_plain_moe(Found& found, const ModelOptions& o) {
  const MoeOptions& m = *o.moe;
  add_if(found, m.score_function == ScoreFunction::kSigmoid, "score_function: SIGMOID");
  add_if(found, m.expert_bias, "expert_bias");
  add_if(found, m.topk_scaling_factor != 1, "topk_scaling_factor");
  add_if(found, o.moe_layers() < o.num_layers, "dense layers");
}

void check_moe(GgufArch arch, Found& found, const ModelOptions& o) {
  const MoeOptions& m = *o.moe;
  const bool shared = m.shared_expert_intermediate_size > 0;
  add_if(found, m.dense_weight > 0, "dense_weight (the hybrid block)");
  add_if(found, m.num_groups > 1, "num_groups");
  if (arch == GgufArch::kGlm4Moe) {
    add_if(found, m.shared_expert_gate, "shared_expert_gate");
    add_if(found, m.shared_expert_intermediate_size % m.moe_intermediate_size != 0,
           "a shared expert that is no multiple of moe_intermediate_size");
    add_if(found, !o.dense_layers_first(), "dense layers after a MoE layer");
    return;
  }
  check_plain_moe(found, o);
  if (arch == GgufArch::kQwen2Moe) {
    add_if(found, !shared, "no shared expert");
    add_if(found, shared && !m.shared_expert_gate, "a shared expert without shared_expert_gate");
    add_if(found, is_normalized(m), "normalize_topk: true");
  } else {
    add_if(found, shared, "a shared expert");
    add_if(found, !is_normalized(m), "normalize_topk: false");
  }
}

void check_attention(GgufArch arch, Found& found, const ModelOptions& o) {
  add_if(found, o.qk_norm == QkNorm::kWhole, "qk_norm: WHOLE");
  if (arch == GgufArch::kGlm4Moe) return;
  const bool per_head = arch == GgufArch::kQwen3Moe || arch == GgufArch::kQwen3;
  add_if(found, per_head && o.qk_norm == QkNorm::kNone, "qk_norm: NONE");
  add_if(found, !per_head && o.qk_norm == QkNorm::kPerHead, "qk_norm: PER_HEAD");
  add_if(found, o.partial_rotary_factor != 1, "partial_rotary_factor");
  add_if(found, o.qkv_bias && arch != GgufArch::kQwen2Moe, "qkv_bias");
  add_if(found, arch == GgufArch::kQwen2Moe && o.head_dim * o.num_attention_heads != o.hidden_size,
         "head_dim other than hidden_size / num_attention_heads");
}

// One layer's tensors, or those around the layers.
class TensorList {
 public:
  TensorList(GgufArch arch, const ModelOptions& o) : arch_(arch), o_(o) {}

  std::vector<GgufTensor> build() {
    add("token_embd.weight", {o_.vocab_size, o_.hidden_size}, "model.embed_tokens.weight");
    for (layer_ = 0; layer_ < o_.num_layers; ++layer_) {
      attention();
      if (o_.is_moe(layer_))
        moe();
      else
        feed_forward("ffn_", "", "mlp.", o_.intermediate_size);
    }
    add("output_norm.weight", {o_.hidden_size}, "model.norm.weight");
    // qwen2moe insists on a head of its own.
    const bool copy = o_.tie_embeddings && arch_ == GgufArch::kQwen2Moe;
    if (copy) add("output.weight", {o_.vocab_size, o_.hidden_size}, "model.embed_tokens.weight");
    if (!o_.tie_embeddings) add("output.weight", {o_.vocab_size, o_.hidden_size}, "lm_head.weight");
    return std::move(tensors_);
  }

 private:
  GgufTensor& add(const std::string& name, std::vector<int64_t> shape, const std::string& source) {
    const bool flat = shape.size() == 1;
    tensors_.push_back({.name = name, .shape = std::move(shape), .sources = {source}, .keep_f32 = flat});
    return tensors_.back();
  }

  GgufTensor& add_block(const std::string& name, std::vector<int64_t> shape, const std::string& source) {
    return add(concat("blk.", layer_, ".", name), std::move(shape),
               concat("model.layers.", layer_, ".", source));
  }

  void projection(const std::string& name, const std::string& source, int64_t heads, bool rotated) {
    const int64_t permute = rotated && arch_ == GgufArch::kLlama ? heads : 0;
    add_block(name + ".weight", {heads * o_.head_dim, o_.hidden_size},
              concat("self_attn.", source, ".weight"))
        .permute_heads = permute;
    if (o_.qkv_bias) add_block(name + ".bias", {heads * o_.head_dim}, concat("self_attn.", source, ".bias"));
  }

  void attention() {
    add_block("attn_norm.weight", {o_.hidden_size}, "input_layernorm.weight");
    projection("attn_q", "q_proj", o_.num_attention_heads, true);
    projection("attn_k", "k_proj", o_.num_key_value_heads, true);
    projection("attn_v", "v_proj", o_.num_key_value_heads, false);
    add_block("attn_output.weight", {o_.hidden_size, o_.num_attention_heads * o_.head_dim},
              "self_attn.o_proj.weight");
    if (o_.qk_norm == QkNorm::kPerHead) {
      add_block("attn_q_norm.weight", {o_.head_dim}, "self_attn.q_norm.weight");
      add_block("attn_k_norm.weight", {o_.head_dim}, "self_attn.k_norm.weight");
    }
    add_block(arch_ == GgufArch::kGlm4Moe ? "post_attention_norm.weight" : "ffn_norm.weight",
              {o_.hidden_size}, "post_attention_layernorm.weight");
  }

  void feed_forward(const std::string& name, const std::string& ending, const std::string& source,
                    int64_t width) {
    add_block(concat(name, "gate", ending, ".weight"), {width, o_.hidden_size}, source + "gate_proj.weight");
    add_block(concat(name, "up", ending, ".weight"), {width, o_.hidden_size}, source + "up_proj.weight");
    add_block(concat(name, "down", ending, ".weight"), {o_.hidden_size, width}, source + "down_proj.weight");
  }

  void experts(const std::string& name, const std::string& source, int64_t rows, int64_t cols) {
    const int64_t count = o_.moe->num_experts;
    GgufTensor& stack = add_block(name, {count, rows, cols}, "");
    stack.sources.clear();
    for (int64_t e = 0; e < count; ++e)
      stack.sources.push_back(concat("model.layers.", layer_, ".mlp.experts.", e, ".", source, ".weight"));
  }

  void moe() {
    const MoeOptions& m = *o_.moe;
    const int64_t width = m.moe_intermediate_size;
    add_block("ffn_gate_inp.weight", {m.num_experts, o_.hidden_size}, "mlp.gate.weight").keep_f32 = true;
    if (arch_ == GgufArch::kGlm4Moe) {
      GgufTensor& bias = add_block("exp_probs_b.bias", {m.num_experts}, "mlp.gate.e_score_correction_bias");
      if (!m.expert_bias) bias.sources.clear();
    }
    experts("ffn_gate_exps.weight", "gate_proj", width, o_.hidden_size);
    experts("ffn_up_exps.weight", "up_proj", width, o_.hidden_size);
    experts("ffn_down_exps.weight", "down_proj", o_.hidden_size, width);
    shared(m);
  }

  // glm4moe computes wrongly without a shared expert; one of zeros adds nothing.
  void shared(const MoeOptions& m) {
    const bool zeros = m.shared_expert_intermediate_size == 0;
    if (zeros && arch_ != GgufArch::kGlm4Moe) return;
    const size_t first = tensors_.size();
    feed_forward("ffn_", "_shexp", "mlp.shared_expert.",
                 zeros ? m.moe_intermediate_size : m.shared_expert_intermediate_size);
    for (size_t i = first; zeros && i < tensors_.size(); ++i) tensors_[i].sources.clear();
    if (m.shared_expert_gate)
      add_block("ffn_gate_inp_shexp.weight", {o_.hidden_size}, "mlp.shared_expert_gate.weight");
  }

  GgufArch arch_;
  const ModelOptions& o_;
  int64_t layer_ = 0;
  std::vector<GgufTensor> tensors_;
};

}  // namespace

const char* name_of(GgufArch arch) { return kNames[static_cast<size_t>(arch)].name; }

std::vector<std::string> obstacles(GgufArch arch, const ModelOptions& o) {
  Found found;
  check_attention(arch, found, o);
  const bool needs_moe = arch != GgufArch::kLlama && arch != GgufArch::kQwen3;
  add_if(found, !o.moe && needs_moe, "no MoE layers");
  add_if(found, o.moe && arch == GgufArch::kQwen3, "MoE layers");
  if (o.moe && arch != GgufArch::kQwen3) check_moe(arch, found, o);
  return found;
}

GgufArch choose_gguf_arch(const std::string& wanted, const ModelOptions& options) {
  std::string reasons, fitting;
  bool known = wanted == "auto";
  for (const GgufName& entry : kNames) {
    const bool asked = wanted == "auto" || wanted == entry.name || wanted == entry.hugging_face;
    known |= asked;
    const Found found = obstacles(entry.arch, options);
    if (found.empty() && asked) return entry.arch;
    if (found.empty())
      fitting += concat(fitting.empty() ? "" : ", ", entry.name);
    else if (asked)
      reasons += concat(reasons.empty() ? "" : "; ", entry.name, " cannot hold: ", join(found));
  }
  if (!known) fail(Fault::kUsage, "--arch: unknown architecture ", shown(wanted), " for --format gguf");
  fail(Fault::kUsage, "export: ", reasons, fitting.empty() ? "" : ". What can hold this model: ", fitting);
}

std::vector<GgufTensor> gguf_tensors(GgufArch arch, const ModelOptions& options) {
  return TensorList(arch, options).build();
}

}  // namespace switchyard
