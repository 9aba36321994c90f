// Whole training runs on the GPU against the CPU's.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/random.h"
#include "tests/gpu/gpu.h"
#include "tests/trainer/temporary_folder.h"
#include "trainer/job/evaluate_file.h"
#include "trainer/job/generation.h"
#include "trainer/job/job.h"

namespace switchyard {

namespace {

constexpr int kSteps = 20;

const char* const kConfig = R"(
  seed: 3
  model {
    hidden_size: 128 num_layers: 2 num_attention_heads: 2 num_key_value_heads: 1 head_dim: 64
    moe { num_experts: 8 top_k: 2 moe_intermediate_size: 64 aux_loss_coeff: 1e-2 z_loss_coeff: 1e-3 }
  }
  train { steps: 20 global_batch_size: 8 micro_batch_size: 2 sequence_length: 64 }
  optimizer { lr: 1e-3 }
  schedule { kind: CONSTANT }
  checkpoint { every_steps: 10 }
)";

struct Curve {
  std::vector<double> loss, grad_norm;
};

class GpuTraining : public GpuTest {
 protected:
  GpuTraining() {
    TokenFileWriter writer(folder_ / "tokens", TokenType::kU16);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20000; ++i) tokens.push_back(static_cast<int32_t>(philox(5, i)[0] % 16 * 7 + i % 5));
    writer.append(tokens);
    writer.end_document();
    writer.finish({.tokenizer = "byte", .vocab_size = 257});
  }

  Config config(Device device, Precision precision = Precision::kFP32, int64_t expert_parallel = 1) const {
    return parse_config(kConfig, "test",
                        {"data.train=" + folder_ / "tokens", std::string("device=") + name_of(device),
                         std::string("precision=") + (precision == Precision::kBF16 ? "BF16" : "FP32"),
                         "parallel.expert=" + std::to_string(expert_parallel)});
  }

  // Trains in a folder of its own, or goes on in it where it exists.
  Curve train(const Config& c, const std::string& name, int ranks = 1) const {
    const std::string run = folder_ / name;
    run_ranks(ranks, [&](Group world) {
      JobOptions options{.run_dir = run, .nccl = false};
      options.local_rank = world->rank();
      options.local_size = ranks;
      TrainingJob(c, world, options).run();
    });
    Curve curve;
    std::ifstream lines(run + "/metrics.jsonl");
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      curve.loss.push_back(json.at("loss"));
      curve.grad_norm.push_back(json.at("grad_norm"));
    }
    EXPECT_EQ(curve.loss.size(), static_cast<size_t>(c.train.steps));
    return curve;
  }

  static void expect_close(const std::vector<double>& a, const std::vector<double>& b, double relative) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_NEAR(a[i], b[i], relative * std::abs(b[i])) << "step " << i + 1;
  }

  TemporaryFolder folder_;
};

TEST_F(GpuTraining, Float32LossesAreTheCpus) {
  const Curve cpu = train(config(Device::kCpu), "cpu"), gpu = train(config(Device::kCuda), "gpu");
  expect_close(gpu.loss, cpu.loss, 1e-4);
  EXPECT_LT(gpu.loss.back(), gpu.loss.front() - 0.5);
}

TEST_F(GpuTraining, Bf16LossesAreNearTheCpus) {
  const Curve cpu = train(config(Device::kCpu, Precision::kBF16), "cpu");
  expect_close(train(config(Device::kCuda, Precision::kBF16), "gpu").loss, cpu.loss, 2e-2);
}

TEST_F(GpuTraining, Float32RepeatsBitForBit) {
  const Curve first = train(config(Device::kCuda), "first"), again = train(config(Device::kCuda), "again");
  EXPECT_EQ(first.loss, again.loss);
  EXPECT_EQ(first.grad_norm, again.grad_norm);
}

TEST_F(GpuTraining, Bf16RepeatsBitForBit) {
  const Config c = config(Device::kCuda, Precision::kBF16);
  const Curve first = train(c, "first"), again = train(c, "again");
  EXPECT_EQ(first.loss, again.loss);
  EXPECT_EQ(first.grad_norm, again.grad_norm);
}

TEST_F(GpuTraining, GraphsGiveTheSameBits) {
  for (const Precision precision : {Precision::kFP32, Precision::kBF16}) {
    Config graphs = config(Device::kCuda, precision);
    graphs.train.cuda_graphs = true;
    const std::string name = precision == Precision::kBF16 ? "bf16" : "float32";
    const Curve plain = train(config(Device::kCuda, precision), "plain " + name);
    const Curve replayed = train(graphs, "graphs " + name);
    EXPECT_EQ(replayed.loss, plain.loss) << name;
    EXPECT_EQ(replayed.grad_norm, plain.grad_norm) << name;
  }
}

TEST_F(GpuTraining, TwoExpertParallelRanksOnOneGpuLearnTheSame) {
  const Curve one = train(config(Device::kCuda), "one");
  expect_close(train(config(Device::kCuda, Precision::kFP32, 2), "two", 2).loss, one.loss, 1e-4);
}

TEST_F(GpuTraining, ExpertsThatMoveBetweenRanksLearnTheSame) {
  Config one = config(Device::kCuda);
  one.model.moe->aux_loss_coeff = 0;
  Config two = one;
  two.parallel.expert = 2;
  two.parallel.rebalance_over_steps = 2;
  const Curve alone = train(one, "alone");
  expect_close(train(two, "moving", 2).loss, alone.loss, 1e-4);
}

TEST_F(GpuTraining, CheckpointHasTheSameLossAndContinuationOnTheCpu) {
  train(config(Device::kCuda), "run");
  double loss[2];
  std::vector<int32_t> made[2];
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    const LoadedModel loaded = load_model(folder_ / "run", device);
    const size_t at = device == Device::kCuda;
    loss[at] = evaluate_file(loaded, folder_ / "tokens").loss;
    generate(*loaded.model, {7, 15, 23}, {}, {.max_tokens = 20, .temperature = 0}, make_self(),
             [&](int32_t id) { made[at].push_back(id); });
  }
  EXPECT_NEAR(loss[1], loss[0], 1e-5 * loss[0]);
  EXPECT_EQ(made[1], made[0]);
}

TEST_F(GpuTraining, CheckpointOfTheGpuGoesOnOnTheCpu) {
  const Curve straight = train(config(Device::kCuda), "straight");
  Config half = config(Device::kCuda);
  half.train.steps = kSteps / 2;
  train(half, "moved");
  expect_close(train(config(Device::kCpu), "moved").loss, straight.loss, 1e-4);
}

}  // namespace
}  // namespace switchyard
