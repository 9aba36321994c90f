#include "benchmarks/train_step/models.h"

#include "kernels/check.h"

namespace switchyard::bench {

namespace {

ModelOptions dense(int64_t hidden, int64_t layers, int64_t heads, int64_t kv_heads, int64_t ffn,
                   int64_t vocab) {
  ModelOptions o;
  o.vocab_size = vocab;
  o.hidden_size = hidden;
  o.num_layers = layers;
  o.num_attention_heads = heads;
  o.num_key_value_heads = kv_heads;
  o.head_dim = 64;
  o.intermediate_size = ffn;
  return o;
}

ModelOptions mixture(ModelOptions o, int64_t experts, int64_t top_k, int64_t ffn) {
  o.moe.emplace();
  o.moe->num_experts = experts;
  o.moe->top_k = top_k;
  o.moe->moe_intermediate_size = ffn;
  o.moe->balance = {Balance::kAux};
  o.moe->aux_loss_coeff = 1e-2;
  return o;
}

}  // namespace

const std::vector<NamedModel>& models() {
  static const ModelOptions large = dense(1024, 8, 16, 4, 0, 32768), small = dense(512, 4, 8, 4, 1536, 4096);
  static const std::vector<NamedModel> all{
      {"dense-124m", dense(768, 12, 12, 12, 2048, 50304), 1024, 32, 64},
      {"coarse", mixture(large, 8, 2, 3584), 2048, 8, 16},
      {"fine", mixture(large, 64, 8, 512), 2048, 8, 16},
      {"small-dense", small, 256, 8, 8},
      {"small-moe8", mixture(small, 8, 2, 768), 256, 8, 8},
      {"small-moe64", mixture(small, 64, 8, 192), 256, 8, 8},
  };
  return all;
}

const NamedModel& find_model(const std::string& name) {
  std::string names;
  for (const NamedModel& m : models()) {
    if (m.name == name) return m;
    names += " " + m.name;
  }
  fail(Fault::kUsage, "no model is called ", name, "; there are", names);
}

int64_t active_matrix_parameters(const ModelOptions& o) {
  const int64_t d = o.hidden_size, heads = o.num_attention_heads, kv = o.num_key_value_heads;
  const int64_t attention = d * o.head_dim * (2 * heads + 2 * kv);
  const int64_t ffn = o.moe ? d * (o.moe->num_experts + 3 * o.moe->top_k * o.moe->moe_intermediate_size)
                            : 3 * d * o.intermediate_size;
  return o.num_layers * (attention + ffn) + d * o.vocab_size;
}

double flops_per_token(const ModelOptions& o, int64_t sequence_length) {
  return 6.0 * static_cast<double>(active_matrix_parameters(o) +
                                   o.num_layers * o.num_attention_heads * o.head_dim * sequence_length);
}

}  // namespace switchyard::bench
