#include "trainer/export/hf_config.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>

#include "trainer/config.h"
#include "trainer/files/strict_json.h"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = int64_t{1} << 31;
constexpr int64_t kMaxLayers = 1 << 16;
constexpr int64_t kAbsurdExperts = 1 << 20;
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

// rope_parameters or rope_scaling; null: neither there nor anything in it.
const json* find_rope(const Reader& config, const char* key) {
  const json* rope = config.find(key);
  if (rope == nullptr) return nullptr;
  if (!rope->is_object()) config.refuse(concat(key, " is no object"));
  if (rope->empty()) return nullptr;
  check_rope_type(config, *rope, key);
  for (const auto& [name, value] : rope->items())
    if (value.is_object()) config.refuse(concat(key, ".", shown(name), " is not supported"));
  return rope;
}

struct Rope {
  double theta, factor;
};

Rope rope_of(const Reader& config, const Rope& otherwise) {
  return {config.positive("rope_theta", otherwise.theta),
          config.positive("partial_rotary_factor", otherwise.factor)};
}

// Versions of transformers differ in whether a rope_scaling of the type "default" counts.
void check_scaling(const Reader& config, const char* key, double with, double without) {
  if (with != without)
    config.refuse(concat("rope_scaling makes ", key, " ", with, ", without it it is ", without,
                         ": programs differ in which they take"));
}

void read_rope(const fs::path& path, const Reader& config, const ArchInfo& arch, ModelOptions& o) {
  const Rope top = rope_of(config, {arch.rope_theta, arch.partial_rotary_factor});
  Rope rope = top;
  if (const json* parameters = find_rope(config, "rope_parameters"))
    rope = rope_of(Reader(path, *parameters), top);
  if (const json* scaling = find_rope(config, "rope_scaling")) {
    const Rope scaled = rope_of(Reader(path, *scaling), top);
    check_scaling(config, "rope_theta", scaled.theta, rope.theta);
    check_scaling(config, "partial_rotary_factor", scaled.factor, rope.factor);
  }
  o.rope_theta = rope.theta;
  o.partial_rotary_factor = rope.factor;
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
  o.initializer_range = config.number("initializer_range", 0.02);
  if (o.initializer_range < 0) config.refuse(concat("initializer_range is ", o.initializer_range));
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
    const int64_t n = config.integer(key, 0, 1, kAbsurdExperts);
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
  o.first_dense_layers = std::min(config.integer("first_k_dense_replace", 1, 0), o.num_layers);
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
  o.moe = m;
  const int64_t moe_layers = o.moe_layers();
  if (moe_layers == 0) o.moe.reset();
  if (moe_layers < o.num_layers) o.intermediate_size = config.integer("intermediate_size", std::nullopt);
}

json read_source(const Reader& config) {
  json source = json::object();
  for (const char* key : kSourceKeys)
    if (const json* value = config.find(key)) source[key] = *value;
  return source;
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
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) fail(Fault::kUsage, path.string(), ": missing");
  if (error) fail(Fault::kUsage, path.string(), ": cannot be read: ", error.message());
  if (!fs::is_regular_file(status)) fail(Fault::kUsage, path.string(), ": is not a regular file");
  if (fs::file_size(path, error) > kMaxBytes)
    fail(Fault::kUsage, path.string(), ": more than ", kMaxBytes, " bytes is no description of a model");
  if (::access(path.c_str(), R_OK) != 0)
    fail(Fault::kUsage, path.string(), ": cannot be read: ", std::strerror(errno));
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
  const bool predicts = arch->arch == Arch::kGlm4Moe;
  return {.arch = arch->arch,
          .options = o,
          .source = read_source(config),
          .mtp_layers = predicts ? config.integer("num_nextn_predict_layers", 0, 0, kMaxLayers) : 0};
}

}  // namespace switchyard
