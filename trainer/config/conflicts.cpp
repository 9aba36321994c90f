#include "trainer/config/conflicts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/attention.h"
#include "kernels/norm_rope.h"
#include "kernels/routing.h"

namespace switchyard::config {
namespace {

constexpr double kAbsurdBytes = 1LL << 50;       // of parameters
constexpr double kAbsurdMicroBytes = 1LL << 44;  // of one activation of one micro-batch
constexpr double kAbsurdTokens = 1LL << 62;
constexpr double kAbsurdStepTokens = 1LL << 36;
constexpr double kAbsurdChoices = 1 << 27;  // of one micro-batch's tokens: they are numbered with 32 bits

// Collects the first complaint; later ones often follow from it.
class Checker {
 public:
  template <class... Values>
  void require(bool holds, std::string path, fmt::format_string<Values...> format, Values&&... values) {
    if (holds || conflict_) return;
    conflict_ = Conflict{std::move(path), fmt::format(format, std::forward<Values>(values)...)};
  }
  void add(std::optional<Conflict> conflict) {
    if (!conflict_) conflict_ = std::move(conflict);
  }
  bool failed() const { return conflict_.has_value(); }
  std::optional<Conflict> result() && { return std::move(conflict_); }

 private:
  std::optional<Conflict> conflict_;
};

void check_attention(Checker& c, const ModelOptions& m) {
  for (const auto& [name, value] : {std::pair{"model.hidden_size", m.hidden_size},
                                    {"model.num_layers", m.num_layers},
                                    {"model.num_attention_heads", m.num_attention_heads}}) {
    c.require(value > 0, name, "{} is missing", name);
  }
  if (c.failed()) return;
  c.require(m.num_key_value_heads > 0 && m.num_attention_heads % m.num_key_value_heads == 0,
            "model.num_key_value_heads",
            "model.num_key_value_heads ({}) must divide model.num_attention_heads ({})",
            m.num_key_value_heads, m.num_attention_heads);
  c.require(
      m.head_dim > 0, "model.num_attention_heads",
      "model.num_attention_heads ({}) must divide model.hidden_size ({}) where model.head_dim is left out",
      m.num_attention_heads, m.hidden_size);
  c.require(
      m.head_dim <= kernels::kMaxHeadDim, "model.head_dim",
      "model.head_dim ({}), which is model.hidden_size / model.num_attention_heads where it is left out, "
      "exceeds {}",
      m.head_dim, kernels::kMaxHeadDim);
  c.require(m.head_dim % 2 == 0, "model.head_dim",
            "model.head_dim is {}; rotary embeddings need an even number", m.head_dim);
  const int64_t rotary = m.rotary_dim();
  c.require(rotary >= 2 && rotary % 2 == 0, "model.partial_rotary_factor",
            "model.partial_rotary_factor ({}) of model.head_dim ({}) is {} rotary dimensions; an even number "
            "of at least 2 is needed",
            m.partial_rotary_factor, m.head_dim, rotary);
}

void check_choice(Checker& c, const MoeOptions& moe) {
  c.require(moe.top_k <= moe.num_experts, "model.moe.top_k",
            "model.moe.top_k ({}) exceeds model.moe.num_experts ({})", moe.top_k, moe.num_experts);
  if (moe.num_groups == 1 && moe.group_topk == 1) return;
  c.require(moe.num_experts % moe.num_groups == 0, "model.moe.num_groups",
            "model.moe.num_groups ({}) must divide model.moe.num_experts ({})", moe.num_groups,
            moe.num_experts);
  c.require(moe.group_topk <= moe.num_groups, "model.moe.group_topk",
            "model.moe.group_topk ({}) exceeds model.moe.num_groups ({})", moe.group_topk, moe.num_groups);
  c.require(moe.top_k % moe.group_topk == 0, "model.moe.group_topk",
            "model.moe.group_topk ({}) must divide model.moe.top_k ({})", moe.group_topk, moe.top_k);
  const int64_t reachable = moe.group_topk * (moe.num_experts / moe.num_groups);
  c.require(moe.top_k <= reachable, "model.moe.top_k",
            "model.moe.top_k ({}) exceeds the {} experts of model.moe.group_topk ({}) groups", moe.top_k,
            reachable, moe.group_topk);
}

void check_moe(Checker& c, const MoeOptions& moe) {
  for (const auto& [name, value] : {std::pair{"model.moe.num_experts", moe.num_experts},
                                    {"model.moe.top_k", moe.top_k},
                                    {"model.moe.moe_intermediate_size", moe.moe_intermediate_size}}) {
    c.require(value > 0, name, "{} is missing", name);
  }
  if (c.failed()) return;
  check_choice(c, moe);
  c.require(!moe.shared_expert_gate || moe.shared_expert_intermediate_size > 0,
            "model.moe.shared_expert_gate",
            "model.moe.shared_expert_gate needs model.moe.shared_expert_intermediate_size");
  c.require(!moe.pad_to_capacity || moe.capacity_factor > 0, "model.moe.pad_to_capacity",
            "model.moe.pad_to_capacity needs model.moe.capacity_factor");
  c.require(moe.bias_update_rate == 0 || moe.expert_bias, "model.moe.bias_update_rate",
            "model.moe.bias_update_rate ({}) needs model.moe.expert_bias", moe.bias_update_rate);
}

void check_layers(Checker& c, const ModelOptions& m) {
  c.require(m.first_dense_layers <= m.num_layers, "model.first_dense_layers",
            "model.first_dense_layers ({}) exceeds model.num_layers ({})", m.first_dense_layers,
            m.num_layers);
  for (const int64_t layer : m.dense_layers) {
    c.require(layer < m.num_layers, "model.dense_layers",
              "model.dense_layers names layer {} of model.num_layers ({})", layer, m.num_layers);
  }
  const int64_t moe_layers = m.moe_layers();
  c.require(moe_layers == m.num_layers || m.intermediate_size > 0, "model.intermediate_size",
            "model.intermediate_size is missing; {} of {} layers are dense", m.num_layers - moe_layers,
            m.num_layers);
  if (!m.moe) return;
  c.require(moe_layers > 0, "model.moe", "model.moe is given, but every layer is dense");
  c.require(m.moe->dense_weight == 0 || m.intermediate_size > 0, "model.intermediate_size",
            "model.intermediate_size is missing; model.moe.dense_weight ({}) needs it", m.moe->dense_weight);
}

}  // namespace

// All experts included (count_parameters() in export/ counts tensor by tensor).
double parameter_count(const ModelOptions& m) {
  const auto d = static_cast<double>(m.hidden_size), head = static_cast<double>(m.head_dim);
  const auto heads = static_cast<double>(m.num_attention_heads),
             kv = static_cast<double>(m.num_key_value_heads);
  double all = static_cast<double>(m.vocab_size) * d * (m.tie_embeddings ? 1 : 2) + d;
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    all += 2 * d + d * head * (2 * heads + 2 * kv) + (m.qkv_bias ? head * (heads + 2 * kv) : 0);
    if (m.qk_norm == QkNorm::kPerHead) all += 2 * head;
    if (m.qk_norm == QkNorm::kWhole) all += head * (heads + kv);
    const bool moe = m.is_moe(layer);
    if (!moe || m.moe->dense_weight > 0) all += 3 * d * static_cast<double>(m.intermediate_size);
    if (!moe) continue;
    const auto experts = static_cast<double>(m.moe->num_experts);
    all +=
        experts * d * ((m.moe->noisy_gate ? 2 : 1) + 3 * static_cast<double>(m.moe->moe_intermediate_size));
    all += 3 * d * static_cast<double>(m.moe->shared_expert_intermediate_size) +
           (m.moe->shared_expert_gate ? d : 0);
  }
  return all;
}

std::optional<Conflict> find_conflict(const ModelOptions& m) {
  Checker c;
  check_attention(c, m);
  if (m.moe && !c.failed()) check_moe(c, *m.moe);
  if (!c.failed()) check_layers(c, m);
  if (!c.failed()) {
    const double parameters = parameter_count(m);
    c.require(4 * parameters <= kAbsurdBytes, "model.hidden_size",
              "the model has {:.3g} parameters, which is absurdly many", parameters);
  }
  return std::move(c).result();
}

std::optional<Conflict> find_device_conflict(const ModelOptions& m, Device device) {
  if (device != Device::kCuda) return std::nullopt;
  Checker c;
  const MoeOptions moe = m.moe.value_or(MoeOptions{});
  for (const auto& [name, value, most] :
       {std::tuple{"model.head_dim", m.head_dim, kernels::kMaxCudaHeadDim},
        {"model.moe.num_experts", moe.num_experts, kernels::kMaxCudaExperts},
        {"model.moe.top_k", moe.top_k, kernels::kMaxCudaChoices},
        {"model.moe.num_groups", moe.num_groups, kernels::kMaxCudaGroups}}) {
    c.require(value <= most, name, "{} ({}) exceeds {}, the most that CUDA has kernels for", name, value,
              most);
  }
  return std::move(c).result();
}

// A graph repeats what was enqueued, and nothing that the host computes or waits for in between.
void check_cuda_graphs(Checker& c, const Config& config) {
  if (!config.train.cuda_graphs) return;
  constexpr const char* kField = "train.cuda_graphs";
  const MoeOptions moe = config.model.moe.value_or(MoeOptions{});
  c.require(config.device == Device::kCuda, kField, "train.cuda_graphs needs device: CUDA");
  c.require(config.parallel.expert == 1, kField,
            "train.cuda_graphs cannot repeat the exchange of parallel.expert ({}), which needs 1",
            config.parallel.expert);
  c.require(!moe.noisy_gate && moe.jitter_eps == 0, kField,
            "train.cuda_graphs cannot repeat random numbers: model.moe.{} is set",
            moe.noisy_gate ? "noisy_gate" : "jitter_eps");
}

// Without gradients a moment falls by (1 - beta) of itself in a step. In bf16 it is 2^7 to 2^8 units in its
// last place, so from 1 - beta = 2^-7 on it falls by at least one unit, of which rounding to nearest takes or
// gives at most half. Below 2^-8 it may be less than half a unit, and the moment would never fall again.
constexpr double kHighestBf16Beta = 1 - 0x1p-7;

void check_moments(Checker& c, const AdamWOptions& o) {
  if (o.moments != DType::kBF16) return;
  for (const auto& [name, beta] : {std::pair{"optimizer.beta1", o.beta1}, {"optimizer.beta2", o.beta2}}) {
    c.require(beta <= kHighestBf16Beta, name,
              "{} ({}) exceeds {}, the most that optimizer.moments (BF16) allow", name, beta,
              kHighestBf16Beta);
  }
}

std::optional<Conflict> find_conflict(const Config& config) {
  Checker c;
  const TrainOptions& t = config.train;
  c.require(t.global_batch_size % t.micro_batch_size == 0, "train.global_batch_size",
            "train.global_batch_size ({}) must be a multiple of train.micro_batch_size ({})",
            t.global_batch_size, t.micro_batch_size);
  const double micro_tokens =
      static_cast<double>(t.micro_batch_size) * static_cast<double>(t.sequence_length);
  const auto widest = static_cast<double>(std::max(config.model.hidden_size, config.model.vocab_size));
  c.require(4 * micro_tokens * std::max(widest, 1.0) <= kAbsurdMicroBytes, "train.micro_batch_size",
            "train.micro_batch_size ({}) times train.sequence_length ({}) is absurdly large",
            t.micro_batch_size, t.sequence_length);
  const double choices = micro_tokens * static_cast<double>(config.model.moe ? config.model.moe->top_k : 1);
  c.require(choices <= kAbsurdChoices, "train.micro_batch_size",
            "train.micro_batch_size ({}) times train.sequence_length ({}){} is more than {}",
            t.micro_batch_size, t.sequence_length, config.model.moe ? " times model.moe.top_k" : "",
            static_cast<int64_t>(kAbsurdChoices));
  c.add(find_device_conflict(config.model, config.device));
  check_cuda_graphs(c, config);
  check_moments(c, config.optimizer);
  const double tokens = static_cast<double>(t.global_batch_size) * static_cast<double>(t.sequence_length);
  c.require(tokens <= kAbsurdStepTokens, "train.global_batch_size",
            "train.global_batch_size ({}) times train.sequence_length ({}) is absurdly large",
            t.global_batch_size, t.sequence_length);
  c.require(tokens * static_cast<double>(t.steps) <= kAbsurdTokens, "train.steps",
            "train.steps ({}) of train.global_batch_size ({}) times train.sequence_length ({}) tokens are "
            "absurdly many",
            t.steps, t.global_batch_size, t.sequence_length);
  c.require(config.data.blend.empty() || config.data.train.empty(), "data.blend",
            "data.blend stands in place of data.train ({}); give one of the two", config.data.train);
  c.require(config.sample.every_steps == 0 || !config.sample.prompts.empty(), "sample.every_steps",
            "sample.every_steps ({}) needs sample.prompts", config.sample.every_steps);
  return std::move(c).result();
}

std::optional<Conflict> find_dead_router(const ModelOptions& model) {
  Checker c;
  if (!model.moe || model.moe->top_k != 1 || model.moe->num_experts == 1) return std::nullopt;
  const bool over_all =
      model.moe->pre_softmax || model.moe->score_function != kernels::ScoreFunction::kSoftmax;
  constexpr const char* kEffect = "the weight is the constant 1 and the router gets no gradient";
  c.require(over_all, "model.moe.pre_softmax", "model.moe.top_k is 1 and model.moe.pre_softmax is false: {}",
            kEffect);
  c.require(!model.moe->normalize_topk, "model.moe.normalize_topk",
            "model.moe.top_k is 1 and model.moe.normalize_topk is true: {}", kEffect);
  return std::move(c).result();
}

std::optional<Conflict> find_layout_conflict(const Config& config) {
  Checker c;
  const int64_t expert = config.parallel.expert;
  const auto& moe = config.model.moe;
  c.require(expert == 1 || moe, "parallel.expert", "parallel.expert ({}) needs model.moe: the model is dense",
            expert);
  c.require(!moe || expert <= moe->num_experts, "parallel.expert",
            "parallel.expert ({}) exceeds model.moe.num_experts ({})", expert, moe ? moe->num_experts : 0);
  return std::move(c).result();
}

}  // namespace switchyard::config
