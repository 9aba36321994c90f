// bench_steps [--skewed] [--requests PREFIX] CONFIG [PATH=VALUE]...: training steps of a config,
// made when they are asked for, so that another program's steps can be timed in turn with ours in
// one run (benchmarks/against_torch).
//
// A request is a line with a number of steps, on stdin, or rank r's in the pipe PREFIX.r. stdout: one JSON
// object per line with their seconds, losses and what the steps took from the system. Ends with the requests.
// The config's data, layout, precision and train.init_from are used; nothing is written. --skewed: with
// moe.expert_bias, pushes the routers' choice to the first experts.
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "benchmarks/train_step/skew.h"
#include "core/device/memory.h"
#include "parallel/data/shares.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/config.h"
#include "trainer/job/step.h"
#include "trainer/job/threads.h"

namespace switchyard::bench {

namespace {

class Steps {
 public:
  Steps(const Config& config, const Group& world, bool skewed)
      : config_(config),
        mesh_(make_mesh(world, static_cast<int>(config.parallel.expert), config.device)),
        model_(store_, config.model, compute_dtype(config.precision), mesh_.ep),
        file_(TokenFile::open(config.data.train)),
        order_(file_, {.sequence_length = config.train.sequence_length,
                       .shuffle = config.data.shuffle,
                       .seed = config.seed}) {
    const bool fresh = config.train.init_from.empty();
    store_.materialize(config.device, config.seed, true, fresh,
                       segment_options(mesh_, config.optimizer.moments));
    if (!fresh) {
      CheckpointReader reader(config.train.init_from);
      load_weights(reader, store_, MissingState::kZero);
    }
    if (skewed) skew(store_);
    stepper_.emplace(config_, model_, store_, mesh_);
  }

  nlohmann::ordered_json run(int steps) {
    const long faults = page_faults(), system = memory_stats(config_.device).system_allocations;
    std::vector<double> seconds, losses, exchange, waiting, overload;
    std::vector<int64_t> moved, shadowed;
    int64_t peak = 0;
    for (int i = 0; i < steps; ++i) {
      const int64_t step = ++step_;
      const StepMetrics m = stepper_->run(step, [&](int64_t micro_batch) {
        const MicroBatchPlan& plan = stepper_->plan();
        return order_.batch(plan.first_sample(step, micro_batch), plan.micro_batch);
      });
      seconds.push_back(m.step_seconds);
      losses.push_back(m.loss);
      exchange.push_back(m.exchange_seconds);
      waiting.push_back(m.exchange_wait_seconds);
      overload.push_back(mean_overload(m.layers));
      moved.push_back(m.experts_moved);
      shadowed.push_back(m.experts_shadowed);
      peak = m.peak_memory_bytes;
    }
    return {{"seconds", seconds},
            {"losses", losses},
            {"exchange_seconds", exchange},
            {"exchange_wait_seconds", waiting},
            {"rank_overload", overload},
            {"experts_moved", moved},
            {"experts_shadowed", shadowed},
            {"peak_memory_bytes", peak},
            {"page_faults", page_faults() - faults},
            {"system_allocations", memory_stats(config_.device).system_allocations - system}};
  }

 private:
  static double mean_overload(const std::vector<LayerLoad>& layers) {
    double sum = 0;
    for (const LayerLoad& load : layers) sum += load.rank_overload;
    return layers.empty() ? 0 : sum / static_cast<double>(layers.size());
  }

  static long page_faults() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
  }

  Config config_;
  Mesh mesh_;
  ParameterStore store_;
  Transformer model_;
  TokenFile file_;
  Sampler order_;
  std::optional<TrainStep> stepper_;
  int64_t step_ = 0;
};

// As a job does: what the config leaves out comes from the checkpoint, and only then are
// the model's defaults derived.
Config with_model_of_checkpoint(Config config) {
  if (config.train.init_from.empty()) return config;
  CheckpointReader reader(config.train.init_from);
  adopt_model(config, read_model_options(reader));
  return config;
}

void serve(const Config& config, const Group& world, bool skewed, std::istream& requests) {
  Steps steps(config, world, skewed);
  for (int count = 0; requests >> count && count > 0;) {
    const nlohmann::ordered_json line = steps.run(count);
    if (world->rank() == 0) std::cout << line.dump() << std::endl;
  }
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  using namespace switchyard;
  try {
    std::vector<std::string> words(argv + 1, argv + argc);
    const bool skewed = std::erase(words, "--skewed") > 0;
    std::string pipes;
    if (const auto at = std::find(words.begin(), words.end(), "--requests"); words.end() - at >= 2) {
      pipes = at[1];
      words.erase(at, at + 2);
    }
    if (words.empty()) {
      fail(Fault::kUsage, "usage: bench_steps [--skewed] [--requests PREFIX] CONFIG [PATH=VALUE]...");
    }
    const Config config =
        bench::with_model_of_checkpoint(load_config(words[0], {words.begin() + 1, words.end()}, {}));
    const LaunchInfo launch = launch_info();
    Group world = make_world({.timeout_seconds = 3600});
    choose_threads(config.threads, launch.local_size);
    std::ifstream pipe;
    if (!pipes.empty()) pipe.open(pipes + "." + std::to_string(world->rank()));
    bench::serve(config, world, skewed, pipes.empty() ? std::cin : pipe);
    world.reset();
    finalize_world();
    return 0;
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return error.exit_code();
  }
}
