#include "trainer/job/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "parallel/comm/planned.h"
#include "parallel/data/shares.h"
#include "trainer/config/conflicts.h"
#include "trainer/export/tensor_list.h"
#include "trainer/job/process_memory.h"
#include "trainer/job/step.h"

namespace switchyard {

namespace {

Axis planned_axis(int rank, int size, const char* name) {
  const Group group = make_planned(rank, size, name);
  return {group, group};
}

// What a running rank is measured to need beside its tensors and the memory of a process that only plans:
// code that was not yet run, the stacks of threads, and oneDNN's copies of what it multiplies; with more than
// one rank MPI and the scratch memory of the sums. The copies, and what is on the heap, grow with the
// matrices up to a bound.
constexpr int64_t kRunningBytes = 6 << 20;
constexpr int64_t kMessagingBytes = 10 << 20;
constexpr int64_t kMostCopies = 8 << 20;
// Micro-batches that a plan goes through: the second finds the gradients of the
// first. More need no more memory.
constexpr int64_t kPlannedMicroBatches = 2;

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
  if (config.device == Device::kCpu) {
    plan.program = resident_bytes() + kRunningBytes + (world > 1 ? kMessagingBytes : 0);
  }
  const int64_t round = config.train.micro_batch_size * world;
  const int64_t micro_batches = config.train.global_batch_size / round;
  const int64_t planned = std::min(micro_batches, kPlannedMicroBatches);
  config.train.global_batch_size = planned * round;
  const int ep = static_cast<int>(config.parallel.expert), ranks = static_cast<int>(world);
  release_cached(Device::kMeta);
  reset_peak(Device::kMeta);
  const Device device = std::exchange(config.device, Device::kMeta);
  imitate(device);
  // Where experts do not divide evenly, the last rank of an ep group has one more than others.
  const Mesh mesh{planned_axis(0, ranks, "world"), planned_axis(ep - 1, ep, "ep"),
                  planned_axis(0, ranks / ep, "edp")};

  ParameterStore store;
  Transformer model(store, config.model, compute_dtype(config.precision), mesh.ep);
  store.materialize(Device::kMeta, config.seed, true, true, segment_options(mesh, config.optimizer.moments));
  for (const Segment& s : store.segments()) {
    plan.weights += s.value.bytes();
    plan.gradients += s.grad.bytes();
    plan.optimizer += s.m.bytes() + s.v.bytes() + (s.master.defined() ? s.master.bytes() : 0);
  }
  const ParameterCount parameters = count_parameters(config.model);
  plan.parameters_total = parameters.total;
  plan.parameters_active = parameters.active;
  for (const Parameter& p : store.parameters()) plan.parameters_rank += p.spec.shape.numel();
  TrainStep step(config, model, store, mesh);
  const StepMetrics metrics = step.run(1, [&](int64_t) { return blank_batch(config.train); });
  plan.activations = std::max<int64_t>(
      0, memory_stats(Device::kMeta).peak_held - plan.weights - plan.gradients - plan.optimizer);
  if (device == Device::kCpu) plan.program += std::min(kMostCopies, plan.activations / 16);
  plan.exchange = model.meter().bytes / planned * micro_batches;
  plan.shadows = model.meter().shadow_bytes / planned * micro_batches;
  plan.gradient_reduction = metrics.gradient_bytes;
  plan.parameter_gathering = metrics.parameter_bytes;
  return plan;
}

void check_memory(const Config& config, int64_t world, int local_size) {
  if (config.device != Device::kCpu) return;
  auto check = [&](const std::string& who, int64_t needed, const std::string& what, int64_t limit) {
    if (needed <= limit) return;
    fail(Fault::kResource, "out of memory before the start: ", who, " need ", needed >> 20, " MiB, and ",
         what, " ", limit >> 20, " MiB (switchyard plan shows what for)");
  };
  // A plan is itself made of many small things: not before weights and gradients alone would fit.
  check("weights and gradients of a rank",
        static_cast<int64_t>(2 * sizeof(float) * config::parameter_count(config.model)) /
            config.parallel.expert,
        "the machine has", available_bytes());
  const Plan plan = make_plan(config, world);
  const int64_t rank = plan.memory() - plan.program;
  check("the tensors of a rank", rank, "its address space is limited to", address_space_limit());
  check(fmt::format("the tensors of {} rank{} on this machine", local_size, local_size == 1 ? "" : "s"),
        rank > std::numeric_limits<int64_t>::max() / local_size ? rank : rank * local_size, "the machine has",
        available_bytes());
}

std::string to_json(const Plan& p) {
  return nlohmann::ordered_json{
      {"world", p.world},
      {"expert_parallel", p.expert_parallel},
      {"tokens_per_step", p.tokens_per_step},
      {"parameters",
       {{"total", p.parameters_total}, {"active", p.parameters_active}, {"per_rank", p.parameters_rank}}},
      {"memory_bytes",
       {{"weights", p.weights},
        {"gradients", p.gradients},
        {"optimizer", p.optimizer},
        {"activations", p.activations},
        {"program", p.program},
        {"total", p.memory()}}},
      {"traffic_bytes_per_step",
       {{"exchange", p.exchange},
        {"shadows", p.shadows},
        {"gradients", p.gradient_reduction},
        {"parameters", p.parameter_gathering}}}}
      .dump();
}

std::string to_text(const Plan& p) {
  auto mib = [](int64_t bytes) {
    return fmt::format("{:>10.1f} MiB", static_cast<double>(bytes) / (1 << 20));
  };
  std::string text = fmt::format("{} rank{}, EP {}, {} tokens a step\n\n", p.world, p.world == 1 ? "" : "s",
                                 p.expert_parallel, p.tokens_per_step);
  text += fmt::format(
      "parameters   {:.2f} M, of which a token meets {:.2f} M; {:.2f} M a rank\n\nmemory of a rank\n",
      static_cast<double>(p.parameters_total) / 1e6, static_cast<double>(p.parameters_active) / 1e6,
      static_cast<double>(p.parameters_rank) / 1e6);
  const std::pair<const char*, int64_t> kinds[] = {{"weights", p.weights},     {"gradients", p.gradients},
                                                   {"optimizer", p.optimizer}, {"activations", p.activations},
                                                   {"program", p.program},     {"total", p.memory()}};
  for (const auto& [name, bytes] : kinds) text += fmt::format("  {:<12}{}\n", name, mib(bytes));
  text += "\ntraffic of a rank in a step\n";
  const std::pair<const char*, int64_t> traffic[] = {{"exchange", p.exchange},
                                                     {"shadows", p.shadows},
                                                     {"gradients", p.gradient_reduction},
                                                     {"parameters", p.parameter_gathering}};
  for (const auto& [name, bytes] : traffic) text += fmt::format("  {:<12}{}\n", name, mib(bytes));
  return text;
}

}  // namespace switchyard
