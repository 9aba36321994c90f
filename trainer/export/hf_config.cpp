#include "trainer/export/hf_config.h"

#include <cmath>
#include <set>

#include "trainer/checkpoint/strict_json.h"
#include "trainer/config.h"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = int64_t{1} << 31;
constexpr int64_t kMaxLayers = 1 << 16;
constexpr int64_t kMaxExperts = 1 << 20;
constexpr int64_t kDefaultContext = 4096;
constexpr const char* kSourceKeys[] = {"model_type", "max_position_embeddings", "bos_token_id",
                                       "eos_token_id", "pad_token_id"};

// Typed access to the members of config.json; null counts as left out.
class Reader {
 public:
  Reader(const fs::path& path, const json& object) : path_(path), object_(object) {
    if (!object.is_object()) fail(Fault::kUsage, path.string(), ": not a JSON object");
  }

  [[noreturn]] void refuse(const std::string& what) const { fail(Fault::kUsage, path_.string(), ": ", what); }

  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  bool is_null(const char* key) const {
    const auto found = object_.find(key);
    return found != object_.end() && found->is_null();
  }

  int64_t integer(const char* key, std::optional<int64_t> otherwise, int64_t least = 1,
                  int64_t most = kMaxSize) const {
    const json* value = find(key);
    if (value == nullptr && !otherwise) refuse(concat(key, " is missing"));
    if (value == nullptr) return *otherwise;
    const bool fits =
        value->is_number_integer() && !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
    if (!fits || value->get<int64_t>() < least || value->get<int64_t>() > most)
      refuse(concat(key, " is ", brief(*value), ", an integer from ", least, " to ", most, " is needed"));
    return value->get<int64_t>();
  }

  double number(const char* key, double otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number() || !std::isfinite(value->get<double>()))
      refuse(concat(key, " is ", brief(*value), ", a number is needed"));
    return value->get<double>();
  }

  double positive(const char* key, double otherwise) const {
    const double value = number(key, otherwise);
    if (!(value > 0)) refuse(concat(key, " is ", value, ", which must be above 0"));
    return value;
  }

  bool flag(const char* key, bool otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) refuse(concat(key, " is ", brief(*value), ", true or false is needed"));
    return value->get<bool>();
  }

  std::string text(const char* key, const std::string& otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) refuse(concat(key, " is ", brief(*value), ", a string is needed"));
    return value->get<std::string>();
  }

  // Keys that change the model in a way we do not have: only `harmless` will do.
  void only(const char* key, const json& harmless) const {
    const json* value = find(key);
    if (value != nullptr && *value != harmless) refuse(concat(key, " ", brief(*value), " is not supported"));
  }

  static std::string brief(const json& value) {
    const std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    return text.size() > 80 ? text.substr(0, 80) + "..." : text;
  }

 private:
  const fs::path& path_;
  const json& object_;
};

void check_rope_type(const Reader& config, const json& rope, const char* key) {
  for (const char* type : {"rope_type", "type"})
    if (const auto found = rope.find(type); found != rope.end() && !found->is_null() && *found != "default")
      config.refuse(concat(key, ".", type, " ", Reader::brief(*found), " is not supported"));
}

void read_rope(const fs::path& path, const Reader& config, const ArchInfo& arch, ModelOptions& o) {
  if (const json* scaling = config.find("rope_scaling")) {
    if (!scaling->is_object()) config.refuse("rope_scaling is no object");
    check_rope_type(config, *scaling, "rope_scaling");
  }
  o.rope_theta = config.positive("rope_theta", arch.rope_theta);
  if (const json* scaling = config.find("rope_scaling")) {
    // Versions of transformers differ in which of the two they take.
    const double inner = Reader(path, *scaling).positive("rope_theta", o.rope_theta);
    if (inner != o.rope_theta)
      config.refuse(
          concat("rope_scaling.rope_theta (", inner, ") contradicts rope_theta (", o.rope_theta, ")"));
  }
  o.partial_rotary_factor = config.positive("partial_rotary_factor", arch.partial_rotary_factor);
  if (const json* rope = config.find("rope_parameters")) {
    if (!rope->is_object()) config.refuse("rope_parameters is no object");
    check_rope_type(config, *rope, "rope_parameters");
    for (const auto& [key, value] : rope->items())
      if (value.is_object()) config.refuse(concat("rope_parameters.", shown(key), " is not supported"));
    const Reader inner(path, *rope);
    o.rope_theta = inner.positive("rope_theta", o.rope_theta);
    o.partial_rotary_factor = inner.positive("partial_rotary_factor", o.partial_rotary_factor);
  }
  if (o.partial_rotary_factor > 1) config.refuse("partial_rotary_factor is above 1");
  if (arch.arch != Arch::kGlm4Moe && o.partial_rotary_factor != 1)
    config.refuse(
        concat("partial_rotary_factor ", o.partial_rotary_factor, " is not supported for ", arch.model_type));
}

// What all architectures share, and what none of ours can have.
void read_common(const Reader& config, const ArchInfo& arch, ModelOptions& o) {
  o.vocab_size = config.integer("vocab_size", std::nullopt);
  o.hidden_size = config.integer("hidden_size", std::nullopt);
  o.num_layers = config.integer("num_hidden_layers", std::nullopt, 1, kMaxLayers);
  o.num_attention_heads = config.integer("num_attention_heads", std::nullopt);
  // Null is not left out here: transformers takes it for one key and value a query.
  const bool each = arch.num_key_value_heads == 0 || config.is_null("num_key_value_heads");
  const int64_t kv = each ? o.num_attention_heads : arch.num_key_value_heads;
  o.num_key_value_heads = config.integer("num_key_value_heads", kv);
  if (config.find("head_dim") == nullptr && o.hidden_size % o.num_attention_heads != 0)
    config.refuse(concat("num_attention_heads (", o.num_attention_heads, ") must divide hidden_size (",
                         o.hidden_size, ") where head_dim is left out"));
  o.head_dim = config.integer("head_dim", o.hidden_size / o.num_attention_heads);
  o.rms_norm_eps = config.positive("rms_norm_eps", arch.rms_norm_eps);
  o.tie_embeddings = config.flag("tie_word_embeddings", false);
  o.initializer_range = config.positive("initializer_range", 0.02);
  const std::string act = config.text("hidden_act", "silu");
  if (act != "silu" && act != "swish") config.refuse(concat("hidden_act ", shown(act), " is not supported"));
  if (config.find("quantization_config") != nullptr) config.refuse("quantization_config is not supported");
  config.only("mlp_bias", false);
  config.only("clip_qkv", nullptr);
  config.only("use_sliding_window", false);
  if (arch.arch == Arch::kMixtral) config.only("sliding_window", nullptr);
  if (const json* layers = config.find("layer_types"))
    for (const json& layer : *layers)
      if (layer != "full_attention")
        config.refuse(concat("layer_types ", Reader::brief(layer), " is not supported"));
  if (arch.arch != Arch::kGlm4Moe) config.only("attention_bias", false);
}

int64_t read_expert_count(const Reader& config) {
  int64_t count = 0;
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    const int64_t n = config.integer(key, 0, 1, kMaxExperts);
    if (n != 0 && count != 0 && n != count) config.refuse(concat(key, " (", n, ") contradicts ", count));
    if (n != 0) count = n;
  }
  if (count == 0) config.refuse("num_experts is missing");
  return count;
}

void read_qwen_layers(const Reader& config, ModelOptions& o) {
  o.moe_layer_interval = config.integer("decoder_sparse_step", 1);
  const json* layers = config.find("mlp_only_layers");
  if (layers == nullptr) return;
  if (!layers->is_array()) config.refuse("mlp_only_layers is no list");
  std::set<int64_t> dense;
  for (const json& layer : *layers) {
    if (!layer.is_number_unsigned()) config.refuse(concat("mlp_only_layers names ", Reader::brief(layer)));
    // Those that there are, once: the others and repetitions mean nothing to transformers either.
    if (layer.get<uint64_t>() < static_cast<uint64_t>(o.num_layers)) dense.insert(layer.get<int64_t>());
  }
  o.dense_layers.assign(dense.begin(), dense.end());
}

// DeepSeek's router: a group's score is the sum of its two best, ours that of its top_k / group_topk best.
void read_groups(const Reader& config, MoeOptions& m) {
  m.num_groups = config.integer("n_group", 1);
  m.group_topk = config.integer("topk_group", 1);
  if (m.num_groups == m.group_topk) m.num_groups = m.group_topk = 1;  // no limit
  if (m.num_groups > 1 && m.top_k != 2 * m.group_topk)
    config.refuse(concat("n_group ", m.num_groups, " with topk_group ", m.group_topk, " is supported for ",
                         2 * m.group_topk, " experts per token only, not ", m.top_k));
}

void read_glm_moe(const Reader& config, ModelOptions& o, MoeOptions& m) {
  m.score_function = kernels::ScoreFunction::kSigmoid;
  m.expert_bias = true;
  m.normalize_topk = config.flag("norm_topk_prob", true);
  m.topk_scaling_factor = config.positive("routed_scaling_factor", 1);
  m.shared_expert_intermediate_size =
      m.moe_intermediate_size * config.integer("n_shared_experts", 1, 1, 1 << 16);
  read_groups(config, m);
  o.first_dense_layers = config.integer("first_k_dense_replace", 1, 0);
}

void read_moe(const Reader& config, Arch arch, ModelOptions& o) {
  const bool one_width = arch == Arch::kMixtral || arch == Arch::kOlmoe;
  MoeOptions m;
  m.num_experts = read_expert_count(config);
  m.top_k = config.integer("num_experts_per_tok", std::nullopt);
  m.moe_intermediate_size =
      config.integer(one_width ? "intermediate_size" : "moe_intermediate_size", std::nullopt);
  m.normalize_topk = arch == Arch::kMixtral || config.flag("norm_topk_prob", false);
  if (arch == Arch::kMixtral) m.jitter_eps = config.number("router_jitter_noise", 0);
  if (arch == Arch::kQwen2Moe) {
    m.shared_expert_intermediate_size = config.integer("shared_expert_intermediate_size", std::nullopt);
    m.shared_expert_gate = true;
  }
  if (arch == Arch::kQwen3Moe || arch == Arch::kQwen2Moe) read_qwen_layers(config, o);
  if (arch == Arch::kGlm4Moe) read_glm_moe(config, o, m);
  int64_t moe_layers = 0;
  o.moe = m;
  for (int64_t layer = 0; layer < o.num_layers; ++layer) moe_layers += o.is_moe(layer);
  if (moe_layers == 0) o.moe.reset();
  if (moe_layers < o.num_layers) o.intermediate_size = config.integer("intermediate_size", std::nullopt);
}

json read_source(const Reader& config) {
  json source = json::object();
  for (const char* key : kSourceKeys)
    if (const json* value = config.find(key)) source[key] = *value;
  return source;
}

// Key by key in the order that a person would read it.
using Text = nlohmann::ordered_json;

void write_moe(Arch arch, const ModelOptions& o, Text& out) {
  const MoeOptions& m = *o.moe;
  int64_t moe_layers = 0;
  Text dense = Text::array();
  for (int64_t layer = 0; layer < o.num_layers; ++layer) {
    if (o.is_moe(layer))
      ++moe_layers;
    else if ((layer + 1) % o.moe_layer_interval == 0)
      dense.push_back(layer);
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

// What the checkpoint says of the model must be readable again: every value is one that a config may have.
void check_values(const ModelOptions& o, const fs::path& path) {
  try {
    (void)model_from_text(model_to_text(o), path.string() + ", as a model");
  } catch (const Error& error) {
    const std::string message = error.what();  // the lines after the first show a text that is not the user's
    fail(Fault::kUsage, message.substr(0, message.find('\n')));
  }
}

}  // namespace

HfModel read_hf_config(const fs::path& path) {
  constexpr uintmax_t kMaxBytes = 1 << 24;
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) fail(Fault::kUsage, path.string(), ": missing");
  if (fs::file_size(path, ignored) > kMaxBytes)
    fail(Fault::kUsage, path.string(), ": more than ", kMaxBytes, " bytes is no description of a model");
  const json object = parse_json(read_file(path), path, Fault::kUsage);
  const Reader config(path, object);
  const std::string type = config.text("model_type", "");
  const ArchInfo* arch = find_arch(type);
  if (arch == nullptr) config.refuse(concat("model_type ", shown(type), " is not supported"));
  ModelOptions o;
  read_common(config, *arch, o);
  read_rope(path, config, *arch, o);
  const bool per_head = arch->arch == Arch::kQwen3Moe || arch->arch == Arch::kQwen3 ||
                        (arch->arch == Arch::kGlm4Moe && config.flag("use_qk_norm", false));
  o.qk_norm = per_head ? QkNorm::kPerHead : arch->arch == Arch::kOlmoe ? QkNorm::kWhole : QkNorm::kNone;
  if (arch->arch == Arch::kQwen2Moe) o.qkv_bias = config.flag("qkv_bias", true);
  if (arch->arch == Arch::kGlm4Moe) o.qkv_bias = config.flag("attention_bias", false);
  if (arch->arch == Arch::kQwen3 || arch->arch == Arch::kLlama)
    o.intermediate_size = config.integer("intermediate_size", std::nullopt);
  else
    read_moe(config, arch->arch, o);
  check_model(o, path.string());
  check_values(o, path);
  return {.arch = arch->arch, .options = o, .source = read_source(config)};
}

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
