// bench_moe_layer: forward and backward of one MoE layer at several loads of the experts
// and expert-parallel degrees.
//
//   bench_moe_layer [--ranks 1,2,4]            ranks are threads of this process, one OpenMP thread each
//   unless OMP_NUM_THREADS says otherwise; mpirun -n N bench_moe_layer      ranks are MPI's processes
//
// Loads: balanced (experts in turn), zipf (a selection bias that falls with the expert's index), hot (one
// expert is among every token's choices). The tokens are divided among the ranks: a case is the same work at
// every degree. GFLOP/s are those of the experts' products, 18 * d * ffn a pair of token and expert.
#include <fmt/format.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "benchmarks/train_step/skew.h"
#include "core/random.h"
#include "parallel/expert/moe_layer.h"

namespace switchyard::bench {

namespace {

struct Size {
  const char* name;
  int64_t experts, top_k, ffn;
};
constexpr Size kSizes[] = {{"moe8", 8, 2, 768}, {"moe64", 64, 8, 192}};
constexpr int64_t kHidden = 512;

struct Arguments {
  std::vector<int> ranks{1, 2, 4};
  std::vector<std::string> precisions{"FP32", "BF16"}, loads{"balanced", "zipf", "hot"};
  int64_t tokens = 2048;
  int repeats = 5;
  int64_t shadow_pairs = 100;  // a job's default for experts of this size
  std::string json;
};

struct Case {
  Size size;
  DType dtype;
  std::string load;
  int64_t tokens;  // of all ranks
  int repeats;
  int64_t shadow_pairs;
};

struct Result {
  double seconds = 0;    // the median of the slowest rank's
  double exchange = 0;   // share of the time, mean over ranks
  double imbalance = 0;  // (max - mean) / mean of the experts' loads
};

MoeOptions options_of(const Case& c) {
  MoeOptions o;
  o.num_experts = c.size.experts;
  o.top_k = c.size.top_k;
  o.moe_intermediate_size = c.size.ffn;
  o.force_balance = c.load == "balanced";
  o.expert_bias = !o.force_balance;
  return o;
}

// A bias that no score outweighs puts the first expert among every token's choices.
void make_hot(const ParameterStore& store) {
  for (const ParameterStore::Buffer& buffer : store.buffers()) {
    std::vector<float> bias(buffer.shape.numel());
    bias[0] = 10;
    upload(buffer.var.value().raw(), buffer.var.device(), bias.data(), buffer.var.value().bytes());
  }
}

Tensor random_rows(int64_t rows, int64_t first, DType dtype) {
  std::vector<float> x(rows * kHidden);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(2 * std::sqrt(3.0) * (uniform_of(philox(7, first * kHidden + i)[0]) - 0.5));
  }
  NoGrad guard;
  return cast(Var(Tensor::from(x, {rows, kHidden}, Device::kCpu)), dtype).value();
}

class Bench {
 public:
  Bench(const Case& c, const Group& world)
      : case_(c),
        world_(world),
        mesh_(make_mesh(world, world->size(), Device::kCpu)),
        meter_(std::make_shared<ExchangeMeter>()),
        layer_(store_, options_of(c), spec(c), mesh_.ep, meter_) {
    store_.materialize(Device::kCpu, 1, true);
    layer_.set_shadow_pairs(c.shadow_pairs);
    if (c.load == "zipf") skew(store_);
    if (c.load == "hot") make_hot(store_);
    const int64_t rows = c.tokens / world->size();
    x_ = random_rows(rows, rows * world->rank(), c.dtype);
    seed_ = random_rows(rows, rows * world->rank() + c.tokens, c.dtype);
  }

  Result measure() {
    run();
    run();
    std::vector<double> seconds;
    double exchange = 0, total = 0;
    for (int i = 0; i < case_.repeats; ++i) {
      world_->barrier();
      *meter_ = {};
      const auto begin = std::chrono::steady_clock::now();
      run();
      double all[2] = {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 0};
      all[1] = all[0];
      exchange += std::accumulate(meter_->seconds.begin(), meter_->seconds.end(), 0.0);
      total += all[0];
      world_->all_reduce(all, 1, DType::kF64, ReduceOp::kMax);
      seconds.push_back(all[0]);
    }
    std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
    double sums[2] = {exchange, total};
    world_->all_reduce(sums, 2, DType::kF64);
    std::vector<LayerLoad> loads = loads_.take();
    reduce(loads, world_);
    return {seconds[seconds.size() / 2], sums[0] / sums[1], loads.at(0).max_violation()};
  }

 private:
  static MoeLayerSpec spec(const Case& c) {
    return {.layer = 0,
            .hidden = kHidden,
            .dense_intermediate = 0,
            .dtype = c.dtype,
            .router_stddev = 0.02,
            .expert_stddev = 0.02,
            .dense_stddev = 0.02,
            .prefix = "mlp."};
  }

  void run() {
    ForwardContext context;
    context.training = true;
    context.loads = &loads_;
    const Var x(x_, true);
    backward(layer_(x, context), seed_);
    store_.forget_grads();
  }

  Case case_;
  Group world_;
  Mesh mesh_;
  ParameterStore store_;
  std::shared_ptr<ExchangeMeter> meter_;
  MoeLayer layer_;
  LoadRecorder loads_;
  Tensor x_, seed_;
};

void report(const Case& c, int ranks, const char* backend, const Result& r, const std::string& json) {
  const auto tokens = static_cast<double>(c.tokens);
  const double flops = tokens * static_cast<double>(18 * c.size.top_k * kHidden * c.size.ffn);
  const char* precision = c.dtype == DType::kBF16 ? "BF16" : "FP32";
  fmt::print(
      "{:<6} {} {:<9} EP {} ({}) {:>9.0f} tok/s {:>7.1f} GFLOP/s  exchange {:>5.1f} %  imbalance {:.2f}\n",
      c.size.name, precision, c.load, ranks, backend, tokens / r.seconds, flops / r.seconds * 1e-9,
      100 * r.exchange, r.imbalance);
  std::fflush(stdout);
  if (json.empty()) return;
  const nlohmann::ordered_json line{{"layer", c.size.name},
                                    {"precision", precision},
                                    {"load", c.load},
                                    {"ep", ranks},
                                    {"backend", backend},
                                    {"tokens", c.tokens},
                                    {"seconds", r.seconds},
                                    {"tokens_per_second", tokens / r.seconds},
                                    {"expert_gflops", flops / r.seconds * 1e-9},
                                    {"exchange_share", r.exchange},
                                    {"imbalance", r.imbalance}};
  std::ofstream(json, std::ios::app) << line.dump() << "\n";
}

void run_case(const Case& c, const Group& world, const char* backend, const Arguments& a) {
  const Result result = Bench(c, world).measure();
  if (world->rank() == 0) report(c, world->size(), backend, result, a.json);
}

template <class F>
void for_cases(const Arguments& a, F&& f) {
  for (const Size& size : kSizes) {
    for (const std::string& precision : a.precisions) {
      for (const std::string& load : a.loads) {
        f(Case{size, precision == "BF16" ? DType::kBF16 : DType::kF32, load, a.tokens, a.repeats,
               a.shadow_pairs});
      }
    }
  }
}

int main_of(int argc, char** argv) {
  Arguments a;
  CLI::App app("Times one MoE layer, forward and backward");
  app.add_option("--ranks", a.ranks, "Thread-ranks; under mpirun its processes are the ranks")
      ->delimiter(',');
  app.add_option("--precision", a.precisions)->delimiter(',')->check(CLI::IsMember({"FP32", "BF16"}));
  app.add_option("--loads", a.loads)->delimiter(',')->check(CLI::IsMember({"balanced", "zipf", "hot"}));
  app.add_option("--tokens", a.tokens, "Of all ranks")->check(CLI::PositiveNumber);
  app.add_option("--repeats", a.repeats)->check(CLI::PositiveNumber);
  app.add_option("--shadow-pairs", a.shadow_pairs, "From how many pairs on experts are copied; 0: never")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--json", a.json, "Append one line per case");
  CLI11_PARSE(app, argc, argv);
  const bool threads_given = std::getenv("OMP_NUM_THREADS") != nullptr;
  if (launch_info().world_size > 1) {
    Group world = make_world({});
    if (!threads_given) omp_set_num_threads(1);
    for_cases(a, [&](const Case& c) { run_case(c, world, "mpi", a); });
    world.reset();
    finalize_world();
    return 0;
  }
  for_cases(a, [&](const Case& c) {
    for (const int ranks : a.ranks) {
      run_ranks(ranks, [&](const Group& world) {
        if (!threads_given) omp_set_num_threads(1);
        run_case(c, world, "threads", a);
      });
    }
  });
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
