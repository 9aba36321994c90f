// Five steps of a tiny MoE with every kernel of the CUDA backend emulated, against the CPU backend.
#include <gtest/gtest.h>

#include "core/device/stream.h"
#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"
#include "trainer/data/token_file.h"
#include "trainer/job/evaluate_file.h"
#include "trainer/job/generation.h"

namespace switchyard::test {
namespace {

constexpr size_t kSteps = 5;

class EmulatedTraining : public testing::Test {
 protected:
  EmulatedTraining() { write_training_tokens(tokens()); }
  std::string tokens() const { return folder_ / "tokens"; }
  std::string path(const std::string& name) const { return folder_ / name; }

  // `run` names the folder.
  Steps run(const std::string& run, Device device, Layout layout = {1, 1}, const std::string& changes = "",
            bool graphs = false) {
    Config config = small_config(tokens(), {"train { global_batch_size: 4 micro_batch_size: 2 "
                                            "sequence_length: 16 } schedule { warmup_steps: 0 }",
                                            changes});
    config.train.steps = steps_;
    config.device = device;
    config.train.cuda_graphs = graphs;
    return train(config, layout, folder_ / run);
  }

  void expect_same_as_cpu(const std::string& changes, Layout layout = {1, 1}) {
    const Steps cpu = run("cpu", Device::kCpu, {1, 1}, changes);
    ASSERT_EQ(cpu.size(), kSteps);
    expect_same_training(run("cuda", Device::kCuda, layout, changes), cpu, 1e-5);
  }

  // Micro-batches from recordings, and not.
  void expect_graphs_to_repeat(Layout layout, const std::string& changes) {
    EXPECT_EQ(run("graphs", Device::kCuda, layout, changes, true),
              run("plain", Device::kCuda, layout, changes));
  }

  int64_t steps_ = kSteps;

 private:
  TemporaryFolder folder_;
};

TEST_F(EmulatedTraining, LossesAreTheCpus) { expect_same_as_cpu(""); }

TEST_F(EmulatedTraining, LossesAreTheCpusWithDropsAndSigmoid) {
  expect_same_as_cpu(
      "model { moe { score_function: SIGMOID capacity_factor: 0.8 token_drop_policy: PROBS } }");
}

TEST_F(EmulatedTraining, LossesAreTheCpusWithGateNoiseAndGlobalBalance) {
  expect_same_as_cpu("model { moe { noisy_gate: true balance: GLOBAL aux_loss_coeff: 0.1 } }");
}

TEST_F(EmulatedTraining, LossesAreTheCpusWithMomentsInBf16) {
  expect_same_as_cpu("optimizer { moments: BF16 }", {2, 1});
}

TEST_F(EmulatedTraining, LossesAreTheCpusOnTwoExpertParallelRanks) { expect_same_as_cpu("", {2, 2}); }

TEST_F(EmulatedTraining, LossesAreTheCpusWhereExpertsMoveBetweenRanks) {
  expect_same_as_cpu(
      "model { moe { num_experts: 8 aux_loss_coeff: 0 bias_update_rate: 0 } } "
      "train { global_batch_size: 16 sequence_length: 32 }",
      {2, 2});
  EXPECT_GT(sum_of_metric(path("cuda"), "experts_moved"), 0);
}

TEST_F(EmulatedTraining, LossesAreTheCpusWithShadowExperts) {
  expect_same_as_cpu(
      "parallel { shadow_pairs: 2 } model { moe { num_experts: 8 aux_loss_coeff: 0 bias_update_rate: 0 } }",
      {2, 2});
  EXPECT_GT(sum_of_metric(path("cuda"), "experts_shadowed"), 0);
}

// Three micro-batches a step: the first and the others have recordings of their own. In between the model
// works without them, on sequences longer than theirs.
TEST_F(EmulatedTraining, GraphsGiveTheSameBits) {
  expect_graphs_to_repeat({1, 1},
                          "model { mask_documents: true moe { balance: GLOBAL z_loss_coeff: 1e-3 } } "
                          "train { global_batch_size: 6 } data { validation: '" +
                              tokens() +
                              "' } "
                              "eval { every_steps: 2 batches: 1 } "
                              "sample { every_steps: 2 prompts: '123' max_tokens: 20 }");
}

// Gradients are reduced after the last.
TEST_F(EmulatedTraining, GraphsOfTwoRanksGiveTheSameBits) {
  expect_graphs_to_repeat({2, 1}, "train { micro_batch_size: 1 }");
}

std::vector<int32_t> continuation(const LoadedModel& loaded, std::vector<int32_t> ids) {
  std::vector<int32_t> made;
  generate(*loaded.model, std::move(ids), {}, {.max_tokens = 5, .temperature = 0}, make_self(),
           [&](int32_t id) { made.push_back(id); });
  return made;
}

TEST_F(EmulatedTraining, ACheckpointHasTheSameLossAndContinuationOnBothDevices) {
  steps_ = 2;
  run("run", Device::kCpu);
  const LoadedModel cpu = load_model(path("run")), cuda = load_model(path("run"), Device::kCuda);
  TokenFileWriter writer(path("few"), TokenType::kU16);
  writer.append(std::vector<int32_t>{3, 60, 0, 7, 7, 21, 4, 4, 9, 40, 2, 1, 0, 0, 5, 30, 31, 8, 3, 2});
  writer.end_document();
  writer.finish({.tokenizer = "byte", .vocab_size = 61});
  const double expected = evaluate_file(cpu, path("few")).loss;
  EXPECT_NEAR(evaluate_file(cuda, path("few")).loss, expected, 1e-5 * expected);
  EXPECT_EQ(continuation(cuda, {3, 60, 7}), continuation(cpu, {3, 60, 7}));
}

// For loss and norm before the clip, and for the loads; the selection bias is updated where it is.
TEST_F(EmulatedTraining, AStepWaitsForTheDeviceTwice) {
  const long start = host_syncs();
  run("shorter", Device::kCuda);
  const long shorter = host_syncs() - start;
  steps_ = kSteps + 3;
  run("longer", Device::kCuda);
  EXPECT_EQ(host_syncs() - start - shorter, shorter + 3 * 2);
}

TEST_F(EmulatedTraining, RepeatsBitForBit) {
  EXPECT_EQ(run("first", Device::kCuda), run("again", Device::kCuda));
}

TEST_F(EmulatedTraining, Bf16RepeatsBitForBitAndLearns) {
  const std::string bf16 = "precision: BF16";
  const Steps first = run("first", Device::kCuda, {1, 1}, bf16);
  EXPECT_EQ(first, run("again", Device::kCuda, {1, 1}, bf16));
  ASSERT_EQ(first.size(), kSteps);
  EXPECT_LT(first.back().loss, first.front().loss);
}

}  // namespace
}  // namespace switchyard::test
