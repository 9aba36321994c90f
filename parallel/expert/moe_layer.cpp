#include "parallel/expert/moe_layer.h"

#include <algorithm>
#include <cmath>

#include "core/launch.h"
#include "core/random.h"
#include "kernels/elementwise.h"

namespace switchyard {

namespace {

kernels::RouteRule route_rule(const MoeOptions& o) {
  return {.experts = o.num_experts,
          .top_k = o.top_k,
          .score = o.score_function,
          .pre_softmax = o.pre_softmax,
          .normalize = o.normalize_topk,
          .scaling = static_cast<float>(o.topk_scaling_factor),
          .num_groups = o.num_groups,
          .group_topk = o.group_topk,
          .force_balance = o.force_balance};
}

kernels::BalanceKind kernel_kind(Balance kind) {
  switch (kind) {
    case Balance::kAux:
    case Balance::kSequence:
    case Balance::kGlobal: return kernels::BalanceKind::kSwitch;
    case Balance::kKl: return kernels::BalanceKind::kKl;
    case Balance::kCv: return kernels::BalanceKind::kCv;
    case Balance::kEntropy: return kernels::BalanceKind::kEntropy;
  }
  return kernels::BalanceKind::kSwitch;
}

bool has(const MoeOptions& o, Balance kind) {
  return std::find(o.balance.begin(), o.balance.end(), kind) != o.balance.end();
}

void set(const Var& buffer, const std::vector<float>& values) {
  upload(buffer.value().raw(), buffer.device(), values.data(), buffer.value().bytes());
}

// Where the buffer is: to read it would be a wait for the device.
void add_to(const Var& buffer, const std::vector<float>& values) {
  const Tensor sum = buffer.value(), x = Tensor::from(values, sum.shape(), sum.device());
  launch_on(sum.device(), [&](auto on) {
    float* y = sum.data<float>();
    kernels::run(on, kernels::Axpby<float>{.y = y, .a = y, .b = x.data<float>(), .n = sum.numel()});
  });
}

// Rows that reach the fullest of the ep ranks, relative to an even load, on average over the layers. Measured
// where it is largest, in the first steps of a dropless run, when the layers' routers lean each its own
// way: 1.3 with 2 ranks and 4 layers, 1.7 with 4 ranks. A capacity bounds it.
double planned_load(const MoeOptions& o, int64_t layers, int ranks) {
  const double free = 1 + 0.65 * std::sqrt(static_cast<double>(ranks - 1) / static_cast<double>(layers));
  const double most = o.capacity_factor > 0 ? std::max(1.0, o.capacity_factor) : ranks;
  return o.force_balance ? 1 : std::min(free, most);
}

// The pieces of this rank's experts in one fused parameter; rows of `names` follow
// each other within an expert.
ParameterSpec expert_spec(const MoeLayerSpec& spec, const Dispatcher& d, const std::string& name, Shape one,
                          const std::vector<std::string>& names) {
  const int64_t size = one.numel() * static_cast<int64_t>(names.size());
  ParameterSpec p{.name = spec.prefix + "experts." + name,
                  .shape = {d.local_experts(), one[0] * static_cast<int64_t>(names.size()), one[1]},
                  .pieces = {},
                  .dtype = spec.dtype,
                  .placement = Placement::kExpert,
                  .stddev = spec.expert_stddev};
  for (int64_t e = 0; e < d.local_experts(); ++e) {
    const std::string expert = spec.prefix + "experts." + std::to_string(d.expert(e)) + ".";
    for (size_t i = 0; i < names.size(); ++i) {
      p.pieces.push_back(
          {expert + names[i] + ".weight", e * size + static_cast<int64_t>(i) * one.numel(), one});
    }
  }
  return p;
}

// x * U[1 - eps, 1 + eps], a function of (key, global token, component) alone.
Tensor jitter_factors(const Tensor& x, double eps, uint64_t key, int64_t first_token) {
  const int64_t rows = x.rows(), cols = x.cols();
  std::vector<float> factors(rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const uint32_t word = philox(key, static_cast<uint64_t>(first_token + r), static_cast<uint64_t>(c))[0];
      factors[r * cols + c] = static_cast<float>(1 + eps * (2.0 * uniform_of(word) - 1));
    }
  }
  return Tensor::from(factors, x.shape(), x.device());
}

// Standard normal, a function of (key, global token, expert) alone. Where nothing is computed, memory alone.
Tensor gate_noise(const Tensor& logits, uint64_t key, int64_t first_token) {
  const int64_t rows = logits.rows(), cols = logits.cols();
  if (logits.device() == Device::kMeta) return Tensor::empty(logits.shape(), DType::kF32, Device::kMeta);
  std::vector<float> noise(rows * cols);
#pragma omp parallel for if (rows * cols > 4096)
  for (int64_t i = 0; i < rows * cols; ++i) {
    const auto token = static_cast<uint64_t>(first_token + i / cols);
    noise[i] = static_cast<float>(normal_of(philox(key, token, static_cast<uint64_t>(i % cols))));
  }
  return Tensor::from(noise, logits.shape(), logits.device());
}

}  // namespace

MoeLayer::MoeLayer(ParameterStore& store, const MoeOptions& options, const MoeLayerSpec& spec, const Axis& ep,
                   std::shared_ptr<ExchangeMeter> meter)
    : options_(options),
      spec_(spec),
      rule_(route_rule(options)),
      dispatcher_(ep, options.num_experts, std::move(meter), "layer " + std::to_string(spec.layer),
                  planned_load(options, spec.moe_layers, ep.size())) {
  const int64_t d = spec.hidden, e = options.num_experts;
  router_ = store.add({.name = spec.prefix + "gate",
                       .shape = {e, d},
                       .pieces = {{spec.prefix + "gate.weight", 0, {e, d}}},
                       .dtype = acc_of(spec.dtype),
                       .stddev = spec.router_stddev});
  if (options.noisy_gate) {
    noise_ = store.add({.name = spec.prefix + "gate.noise",
                        .shape = {e, d},
                        .pieces = {{spec.prefix + "gate.noise_weight", 0, {e, d}}},
                        .dtype = acc_of(spec.dtype),
                        .fill = 0});
  }
  if (options.expert_bias) bias_ = store.add_buffer(spec.prefix + "gate.e_score_correction_bias", {e});
  if (has(options, Balance::kGlobal)) excess_ = store.add_buffer(spec.prefix + "gate.load_excess", {e});
  gate_up_ = store.add(gate_up_spec());
  down_ = store.add(down_spec());
  if (options.shared_expert_intermediate_size > 0) {
    shared_.emplace(store, spec.prefix + "shared_expert.", d, options.shared_expert_intermediate_size,
                    spec.dtype, spec.expert_stddev);
    if (options.shared_expert_gate) {
      shared_gate_ = store.add({.name = spec.prefix + "shared_expert_gate",
                                .shape = {1, d},
                                .pieces = {{spec.prefix + "shared_expert_gate.weight", 0, {1, d}}},
                                .dtype = spec.dtype,
                                .stddev = spec.router_stddev});
    }
  }
  if (options.dense_weight > 0) {
    dense_.emplace(store, spec.prefix + "dense.", d, spec.dense_intermediate, spec.dtype, spec.dense_stddev);
  }
}

ParameterSpec MoeLayer::gate_up_spec() const {
  return expert_spec(spec_, dispatcher_, "gate_up", {options_.moe_intermediate_size, spec_.hidden},
                     {"gate_proj", "up_proj"});
}

ParameterSpec MoeLayer::down_spec() const {
  return expert_spec(spec_, dispatcher_, "down", {spec_.hidden, options_.moe_intermediate_size},
                     {"down_proj"});
}

void MoeLayer::place_experts(ParameterStore& store, const Slots& slots) {
  dispatcher_.place(slots);
  for (ParameterSpec spec : {gate_up_spec(), down_spec()})
    store.parameter(spec.name).spec.pieces = std::move(spec.pieces);
}

void MoeLayer::move_experts(ParameterStore& store, const Slots& slots, const Axis& edp) {
  const CommLabel scope("layer " + std::to_string(spec_.layer) + " moving experts");
  const Slots before = dispatcher_.slots();
  place_experts(store, slots);
  for (const ParameterSpec& spec : {gate_up_spec(), down_spec()}) {
    const Parameter& p = store.parameter(spec.name);
    const Segment& s = store.segments()[p.segment];
    const auto move = [&](const Tensor& held, int64_t held_begin, const Group& holders) {
      if (!held.defined()) return;
      const SlotRows rows{p.spec.shape.numel() / p.spec.shape[0], held, held_begin - p.offset, holders};
      move_rows(rows, before, slots, dispatcher_.axis());
    };
    move(s.value, 0, nullptr);
    for (const Tensor& state : {s.master, s.m, s.v})
      move(state, s.part_begin(), s.share.ranks > 1 ? edp.device : nullptr);
  }
}

Var MoeLayer::router_logits(const Var& x, const ForwardContext& context) const {
  const bool noisy = options_.noisy_gate && context.training;
  if (options_.jitter_eps == 0 && !noisy) return mixed_linear(x, router_);
  Var input = cast(x, router_.dtype());
  if (options_.jitter_eps > 0 && context.training && x.device() != Device::kMeta) {
    const uint64_t key = key_of(context.noise_key, spec_.prefix + "jitter");
    const Var factors(jitter_factors(input.value(), options_.jitter_eps, key, context.first_token));
    input = multiply(input, cast(factors, input.dtype()).value());
  }
  const Var logits = linear(input, router_);
  if (!noisy) return logits;
  const uint64_t key = key_of(context.noise_key, spec_.prefix + "noise");
  const Var noise(gate_noise(logits.value(), key, context.first_token));
  return add_gate_noise(logits, linear(input, noise_), cast(noise, logits.dtype()).value());
}

Tensor MoeLayer::keep(const Routing& routing, bool training) const {
  const double factor = training ? options_.capacity_factor : options_.eval_capacity_factor;
  if (factor <= 0) return routing.expert;
  const double even =
      static_cast<double>(routing.expert.numel()) * factor / static_cast<double>(options_.num_experts);
  const int64_t capacity = std::max(options_.min_capacity, static_cast<int64_t>(std::ceil(even)));
  return drop_over_capacity(routing.expert, routing.weight.value(), options_.num_experts, capacity,
                            options_.token_drop_policy);
}

void MoeLayer::add_losses(const Routing& routing, const Var& logits, ForwardContext& context,
                          LoadRecorder::Sample& sample) const {
  Var balance;
  for (const Balance kind : options_.balance) {
    const int64_t segments = kind == Balance::kSequence ? context.sequences : 1;
    const Tensor excess = kind == Balance::kGlobal ? cast(excess_, logits.dtype()).value() : Tensor();
    const Var loss = balance_loss(routing.scores, routing.expert, kernel_kind(kind), segments,
                                  options_.aux_loss_coeff * context.aux_scale, excess);
    balance = balance.defined() ? add(balance, loss) : loss;
  }
  if (balance.defined()) {
    sample.aux = balance.value();
    context.losses.push_back(balance);
  }
  if (options_.z_loss_coeff > 0) {
    const Var z = z_loss(logits, options_.z_loss_coeff * context.aux_scale);
    sample.z = z.value();
    context.losses.push_back(z);
  }
}

Var MoeLayer::experts(const Dispatched& sent) const {
  Vars gate_up{gate_up_}, down{down_};
  const Var rows = sent.lending.empty() ? sent.rows : sent.lending.lend(sent.rows, {&down, &gate_up});
  return grouped_linear(grouped_linear_swiglu(rows, gate_up, sent.groups), down, sent.groups);
}

Var MoeLayer::operator()(const Var& x, ForwardContext& context) const {
  const Var logits = router_logits(x, context);
  const Routing routing = route(logits, bias_.defined() ? bias_.value() : Tensor(), rule_);
  const Tensor kept = keep(routing, context.training);
  const SortedPairs pairs = sort_by_expert(kept, options_.num_experts);

  LoadRecorder::Sample sample{pairs.counts, pairs.counts, routing.entropy, {}, {}};
  if (!kept.same_memory(routing.expert))
    sample.assigned = sort_by_expert(routing.expert, options_.num_experts).counts;
  if (context.training) add_losses(routing, logits, context, sample);
  if (context.loads != nullptr) context.loads->add(spec_.layer, sample);

  const Dispatched sent = dispatcher_.dispatch(x, routing.weight, kept, pairs);
  Var y = dispatcher_.collect(experts(sent), sent);
  if (shared_) {
    const Var s = (*shared_)(x);
    y = add(y, shared_gate_.defined() ? sigmoid_gate(s, linear(x, shared_gate_)) : s);
  }
  if (dense_) y = axpby((*dense_)(x), y, options_.dense_weight, 1 - options_.dense_weight);
  return y;
}

void MoeLayer::update_routing(const LayerLoad& load) const {
  update_bias(load);
  update_excess(load);
}

void MoeLayer::update_bias(const LayerLoad& load) const {
  if (!bias_.defined() || options_.bias_update_rate == 0) return;
  std::vector<float> change;
  const double mean = static_cast<double>(load.pairs()) / static_cast<double>(load.assigned.size());
  for (const int64_t count : load.assigned) {
    const double lack = mean - static_cast<double>(count);
    change.push_back(static_cast<float>(options_.bias_update_rate * ((lack > 0) - (lack < 0))));
  }
  add_to(bias_, change);
}

void MoeLayer::update_excess(const LayerLoad& load) const {
  if (!excess_.defined() || load.pairs() == 0) return;
  std::vector<float> excess;
  for (const int64_t count : load.assigned) {
    const double share = static_cast<double>(count) / static_cast<double>(load.pairs());
    excess.push_back(static_cast<float>(share - 1 / static_cast<double>(load.assigned.size())));
  }
  set(excess_, excess);
}

}  // namespace switchyard
