#include "trainer/job/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "parallel/comm/planned.h"
#include "trainer/job/step.h"

namespace switchyard {

namespace {

Axis planned_axis(int size, const char* name) {
  const Group group = make_planned(0, size, name);
  return {group, group};
}

int64_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "VmRSS:") {
      int64_t kib = 0;
      status >> kib;
      return kib << 10;
    }
  }
  return 0;
}

void count_parameters(const ParameterStore& store, const ModelOptions& model, Plan& plan) {
  for (const Parameter& p : store.parameters()) {
    const int64_t n = p.spec.shape.numel();
    plan.parameters_rank += n;
    if (p.spec.placement == Placement::kExpert) {
      const int64_t all = n / p.spec.shape[0] * model.moe->num_experts;
      plan.parameters_total += all;
      plan.parameters_active += all / model.moe->num_experts * model.moe->top_k;
    } else {
      plan.parameters_total += n;
      plan.parameters_active += n;
    }
  }
}

Batch blank_batch(const TrainOptions& t) {
  const std::vector<int32_t> zeros(t.micro_batch_size * t.sequence_length);
  return {zeros, zeros, {}, t.micro_batch_size, t.sequence_length};
}

}  // namespace

Plan make_plan(Config config, int64_t world) {
  check_world(config, world);
  Plan plan;
  plan.world = world;
  plan.expert_parallel = config.parallel.expert;
  plan.tokens_per_step = config.train.global_batch_size * config.train.sequence_length;
  if (config.device == Device::kCpu) plan.program = resident_bytes();
  const int ep = static_cast<int>(config.parallel.expert), ranks = static_cast<int>(world);
  const Mesh mesh{planned_axis(ranks, "world"), planned_axis(ep, "ep"), planned_axis(ranks / ep, "edp")};
  config.device = Device::kMeta;

  ParameterStore store;
  const Transformer model(store, config.model, compute_dtype(config.precision), mesh.ep);
  store.materialize(Device::kMeta, config.seed, true);
  for (const Segment& s : store.segments()) {
    plan.weights += s.value.bytes();
    plan.gradients += s.grad.bytes();
    plan.optimizer += s.m.bytes() + s.v.bytes() + (s.master.defined() ? s.master.bytes() : 0);
  }
  count_parameters(store, config.model, plan);
  TrainStep step(config, model, store, mesh);
  const StepMetrics metrics = step.run(1, [&](int64_t) { return blank_batch(config.train); });
  plan.activations = std::max<int64_t>(
      0, memory_stats(Device::kMeta).peak_reserved - plan.weights - plan.gradients - plan.optimizer);
  plan.exchange = model.meter().bytes;
  plan.gradient_reduction = metrics.gradient_bytes;
  return plan;
}

std::string to_json(const Plan& p) {
  return nlohmann::ordered_json{
      {"world", p.world},
      {"expert_parallel", p.expert_parallel},
      {"tokens_per_step", p.tokens_per_step},
      {"parameters", {{"total", p.parameters_total}, {"active", p.parameters_active}, {"per_rank", p.parameters_rank}}},
      {"memory_bytes",
       {{"weights", p.weights},
        {"gradients", p.gradients},
        {"optimizer", p.optimizer},
        {"activations", p.activations},
        {"program", p.program},
        {"total", p.memory()}}},
      {"traffic_bytes_per_step", {{"exchange", p.exchange}, {"gradients", p.gradient_reduction}}}}
      .dump();
}

std::string to_text(const Plan& p) {
  auto mib = [](int64_t bytes) { return fmt::format("{:>10.1f} MiB", static_cast<double>(bytes) / (1 << 20)); };
  std::string text = fmt::format("{} rank{}, EP {}, {} tokens a step\n\n", p.world, p.world == 1 ? "" : "s",
                                 p.expert_parallel, p.tokens_per_step);
  text += fmt::format("parameters   {:.2f} M, of which a token meets {:.2f} M; {:.2f} M a rank\n\nmemory of a rank\n",
                      static_cast<double>(p.parameters_total) / 1e6, static_cast<double>(p.parameters_active) / 1e6,
                      static_cast<double>(p.parameters_rank) / 1e6);
  const std::pair<const char*, int64_t> kinds[] = {{"weights", p.weights},         {"gradients", p.gradients},
                                                   {"optimizer", p.optimizer},     {"activations", p.activations},
                                                   {"program", p.program},         {"total", p.memory()}};
  for (const auto& [name, bytes] : kinds) text += fmt::format("  {:<12}{}\n", name, mib(bytes));
  text += fmt::format("\ntraffic of a rank in a step\n  {:<12}{}\n  {:<12}{}\n", "exchange", mib(p.exchange), "gradients",
                      mib(p.gradient_reduction));
  return text;
}

}  // namespace switchyard
