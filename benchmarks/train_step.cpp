// bench_train_step: whole training steps of named models on random tokens: tokens and model FLOPs per second,
// share of the peak (MFU), memory, waits for the device, and with --profile where the time goes.
//
//   bench_train_step --models dense-124m,coarse,fine --device CUDA --precision BF16 --routing balanced,skewed
//   --json F
//
// Under mpirun (on CPUs) the ranks share a model's sequences and experts; told is what the first one measured.
//
// MFU = tokens/s * flops_per_token / peak (benchmarks/train_step/models.h has the count: 6 x active matrix
// parameters and causal attention). Each line of --json is one measurement; against_torch/gpu_model.py prints
// the same keys.
#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "benchmarks/train_step/models.h"
#include "benchmarks/train_step/profile.h"
#include "benchmarks/train_step/skew.h"
#include "core/device/stream.h"
#include "core/random.h"
#include "parallel/comm/make.h"
#include "parallel/data/shares.h"
#include "parallel/expert/shadows.h"
#include "trainer/job/step.h"

namespace switchyard::bench {

namespace {

struct Arguments {
  std::vector<std::string> models{"small-dense", "small-moe8", "small-moe64"};
  std::string device = "CPU", precision = "FP32", moments = "FP32";
  // balanced: experts in turn; free: the untrained router; skewed: the router's choice
  // pushed to the first experts.
  std::vector<std::string> routing{"balanced"};
  int steps = 10, warmup = 3;
  int64_t micro_batch = 0, global_batch = 0, experts = 0, layers = 0;  // 0: the model's
  double peak_tflops = 989.4;                                          // dense bf16 of an H100 or H200
  bool profile = false, graphs = false;
  std::string json;
};

Config make_config(const NamedModel& model, const Arguments& a, const std::string& routing, int ranks) {
  Config c;
  c.model = model.options;
  c.device = a.device == "CUDA" ? Device::kCuda : Device::kCpu;
  c.precision = a.precision == "BF16" ? Precision::kBF16 : Precision::kFP32;
  c.optimizer.moments = a.moments == "BF16" ? DType::kBF16 : DType::kF32;
  c.train.sequence_length = model.sequence_length;
  c.train.micro_batch_size =
      a.micro_batch > 0 ? a.micro_batch : std::max<int64_t>(1, model.micro_batch / ranks);
  c.train.global_batch_size =
      a.global_batch > 0 ? a.global_batch : std::max(model.global_batch, ranks * c.train.micro_batch_size);
  c.train.cuda_graphs = a.graphs;
  c.schedule.steps = a.warmup + a.steps;
  if (a.layers > 0) c.model.num_layers = a.layers;
  if (c.model.moe) {
    if (a.experts > 0) c.model.moe->num_experts = a.experts;
    c.model.moe->force_balance = routing == "balanced";
    c.model.moe->expert_bias = routing == "skewed";
    if (c.device == Device::kCpu)
      c.parallel.shadow_pairs =
          shadow_pairs_that_pay(c.model.hidden_size, c.model.moe->moe_intermediate_size);
  }
  return c;
}

Batch random_batch(const Config& c, uint64_t number) {
  Batch batch;
  batch.sequences = c.train.micro_batch_size;
  batch.sequence_length = c.train.sequence_length;
  const int64_t tokens = batch.sequences * batch.sequence_length;
  const auto token = [&](int64_t i) {
    return static_cast<int32_t>(philox(number, i)[0] % static_cast<uint32_t>(c.model.vocab_size));
  };
  for (int64_t i = 0; i < tokens; ++i) {
    batch.ids.push_back(token(i));
    batch.targets.push_back(token(i + 1));
  }
  return batch;
}

struct Measurement {
  double seconds = 0;        // of a step; on a CPU the median
  Ceilings ceilings;         // with --profile, on a CPU
  double product_flops = 0;  // what products could have done in a step's time: median over the steps
  double syncs = 0;          // of a step
  double loss = 0;
  double imbalance = 0;  // (max - mean) / mean of the experts' loads, mean over layers
  int64_t peak_bytes = 0;
  std::vector<Profile::Row> profile;
};

double imbalance_of(const StepMetrics& metrics) {
  double sum = 0;
  for (const LayerLoad& load : metrics.layers) sum += load.max_violation();
  return metrics.layers.empty() ? 0 : sum / static_cast<double>(metrics.layers.size());
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void wait_for(Device device) {
  if (device == Device::kCuda) synchronize_cuda();
}

class Run {
 public:
  Run(const Config& config, const std::string& routing, const Group& world)
      : config_(config),
        mesh_(make_mesh(world, config.model.moe ? world->size() : 1, config.device, {}, false)),
        model_(store_, config_.model, compute_dtype(config_.precision), mesh_.ep) {
    store_.materialize(config_.device, 1, true, true, segment_options(mesh_, config_.optimizer.moments));
    if (routing == "skewed") skew(store_);
    stepper_.emplace(config_, model_, store_, mesh_);
    for (uint64_t i = 0; i < 4; ++i) batches_.push_back(random_batch(config_, i));
  }

  Measurement measure(const Arguments& a) {
    for (int i = 0; i < a.warmup; ++i) step();
    Measurement m;
    const StepMetrics last = config_.device == Device::kCpu ? time_one_by_one(m, a) : time_together(m, a);
    m.loss = last.loss;
    m.imbalance = imbalance_of(last);
    m.peak_bytes = peak_memory_bytes(config_.device);
    if (a.profile) m.profile = profile();
    if (a.profile && config_.device == Device::kCpu) m.ceilings.bytes = triad_rate();
    return m;
  }

 private:
  StepMetrics step() {
    return stepper_->run(++steps_, [&](int64_t m) { return batches_[(steps_ + m) % batches_.size()]; });
  }

  // A GPU is not waited for between steps.
  StepMetrics time_together(Measurement& m, const Arguments& a) {
    wait_for(config_.device);
    const long syncs = host_syncs();
    const auto begin = std::chrono::steady_clock::now();
    StepMetrics last;
    for (int i = 0; i < a.steps; ++i) last = step();
    m.syncs = static_cast<double>(host_syncs() - syncs) / a.steps;
    wait_for(config_.device);
    m.seconds = seconds_since(begin) / a.steps;
    return last;
  }

  // After each step the product's rate, so that both are of the same second: the machine's speed may drift.
  StepMetrics time_one_by_one(Measurement& m, const Arguments& a) {
    const bool bf16 = config_.precision == Precision::kBF16;
    std::vector<double> seconds, rates, flops;
    StepMetrics last;
    for (int i = 0; i < a.steps; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      last = step();
      seconds.push_back(seconds_since(begin));
      rates.push_back(a.profile ? product_rate(bf16) : 0);
      flops.push_back(seconds.back() * rates.back());
    }
    m.seconds = median(seconds);
    m.ceilings.flops = median(rates);
    m.product_flops = median(flops);
    return last;
  }

  std::vector<Profile::Row> profile() {
    constexpr int kProfiled = 3;
    Profile profile(config_.device == Device::kCuda ? cuda_clock() : host_clock());
    for (int i = 0; i < kProfiled; ++i) {
      profile.start();
      step();
      profile.stop(kUpdate);
    }
    return profile.rows(kProfiled);
  }

  Config config_;
  Mesh mesh_;
  ParameterStore store_;
  Transformer model_;
  std::optional<TrainStep> stepper_;
  std::vector<Batch> batches_;
  int64_t steps_ = 0;
};

void report(const NamedModel& model, const Config& c, const std::string& routing, int ranks,
            const Measurement& m, const Arguments& a) {
  const Ceilings& ceilings = m.ceilings;  // of one rank
  const auto tokens = static_cast<double>(c.train.global_batch_size * c.train.sequence_length);
  const double tflops = tokens / m.seconds * flops_per_token(c.model, c.train.sequence_length) / 1e12;
  const bool cuda = c.device == Device::kCuda;
  fmt::print("{:<12} {:<5} {:<5} {:<9} {:>9.0f} tok/s {:>9.3f} ms {:>8.3f} TFLOP/s", model.name, a.device,
             a.precision, routing, tokens / m.seconds, m.seconds * 1e3, tflops);
  if (cuda) fmt::print(" MFU {:>5.1f}%", 100 * tflops / a.peak_tflops);
  fmt::print("  {:.2f} GiB  {:.1f} syncs  imbalance {:.2f}  loss {:.3f}\n",
             static_cast<double>(m.peak_bytes) / (1 << 30), m.syncs, m.imbalance, m.loss);
  const StepShape shape{.tokens = c.train.global_batch_size * c.train.sequence_length,
                        .sequence_length = c.train.sequence_length,
                        .ranks = ranks,
                        .bf16 = c.precision == Precision::kBF16,
                        .bf16_moments = c.optimizer.moments == DType::kBF16,
                        .on_cpu = !cuda,
                        .one_micro_batch = c.train.micro_batch_size * ranks == c.train.global_batch_size};
  const std::map<std::string, Work> work = work_of_step(c.model, shape);
  const double share = m.product_flops > 0 ? tokens * flops_per_token(c.model, c.train.sequence_length) /
                                                 (ranks * m.product_flops)
                                           : 0;
  if (ceilings.flops > 0) {
    fmt::print("  products 1024^3 {:.1f} GF/s, the step {:.0f} % of that; memory {:.1f} GB/s\n",
               ceilings.flops * 1e-9, 100 * share, ceilings.bytes * 1e-9);
  }
  if (a.profile) fmt::print("{}", profile_table(m.profile, work, ceilings));
  if (a.json.empty()) return;
  nlohmann::ordered_json line{{"system", "switchyard"},
                              {"model", model.name},
                              {"device", a.device},
                              {"precision", a.precision},
                              {"moments", a.moments},
                              {"ranks", ranks},
                              {"graphs", a.graphs},
                              {"routing", c.model.moe ? routing : "none"},
                              {"num_experts", c.model.moe ? c.model.moe->num_experts : 0},
                              {"num_layers", c.model.num_layers},
                              {"sequence_length", c.train.sequence_length},
                              {"micro_batch", c.train.micro_batch_size},
                              {"global_batch", c.train.global_batch_size},
                              {"step_seconds", m.seconds},
                              {"tokens_per_second", tokens / m.seconds},
                              {"model_tflops", tflops},
                              {"mfu", cuda ? nlohmann::ordered_json(tflops / a.peak_tflops) : nullptr},
                              {"peak_memory_bytes", m.peak_bytes},
                              {"host_syncs_per_step", m.syncs},
                              {"imbalance", m.imbalance},
                              {"loss", m.loss}};
  if (!cuda) line["threads"] = omp_get_max_threads();
  if (ceilings.flops > 0) {
    line["gemm_ceiling_gflops"] = ceilings.flops * 1e-9;
    line["memory_ceiling_gbytes_per_second"] = ceilings.bytes * 1e-9;
    line["step_share_of_gemm_ceiling"] = share;
  }
  if (a.profile) line["profile"] = profile_json(m.profile, work, ceilings);
  std::ofstream(a.json, std::ios::app) << line.dump() << "\n";
}

void run_all(const Arguments& a) {
  const Group world = make_world({});
  const int ranks = world->size();
  if (a.device == "CUDA") {
    if (ranks > 1)
      fail(Fault::kUsage, "bench_train_step measures one GPU, and ", ranks, " ranks were started");
    use_cuda_device(0, 1);
  }
  for (const std::string& name : a.models) {
    const NamedModel& model = find_model(name);
    for (const std::string& routing : a.routing) {
      if (!model.options.moe && routing != a.routing.front()) continue;
      const Config config = make_config(model, a, routing, ranks);
      Measurement m;
      {
        Run run(config, routing, world);
        m = run.measure(a);
      }
      if (world->rank() == 0) report(model, config, routing, ranks, m, a);
      std::fflush(stdout);
      release_cached(config.device);
      reset_peak(config.device);
    }
  }
}

int main_of(int argc, char** argv) {
  Arguments a;
  CLI::App app("Times whole training steps on random tokens");
  app.add_option("--models", a.models, "Names, see benchmarks/train_step/models.cpp")->delimiter(',');
  app.add_option("--device", a.device)->check(CLI::IsMember({"CPU", "CUDA"}));
  app.add_option("--precision", a.precision)->check(CLI::IsMember({"FP32", "BF16"}));
  app.add_option("--moments", a.moments, "Of AdamW")->check(CLI::IsMember({"FP32", "BF16"}));
  app.add_option("--routing", a.routing)
      ->delimiter(',')
      ->check(CLI::IsMember({"balanced", "free", "skewed"}));
  app.add_option("--steps", a.steps)->check(CLI::PositiveNumber);
  app.add_option("--warmup", a.warmup)->check(CLI::NonNegativeNumber);
  app.add_option("--micro-batch", a.micro_batch, "Sequences; default: the model's");
  app.add_option("--global-batch", a.global_batch, "Sequences; default: the model's");
  app.add_option("--experts", a.experts, "Of a mixture, at the same top_k; default: the model's");
  app.add_option("--layers", a.layers, "Default: the model's");
  app.add_option("--peak-tflops", a.peak_tflops, "Of MFU; default: dense bf16 of an H100");
  app.add_option("--json", a.json, "Append one line per measurement");
  CLI::Option* profile = app.add_flag("--profile", a.profile, "Time per op of three more steps");
  app.add_flag("--graphs", a.graphs, "Micro-batches as CUDA graphs, whose ops no profile sees")
      ->excludes(profile);
  CLI11_PARSE(app, argc, argv);
  run_all(a);
  finalize_world();
  return 0;
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  try {
    return switchyard::bench::main_of(argc, argv);
  } catch (const switchyard::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    switchyard::abort_world(error.exit_code());
  }
}
