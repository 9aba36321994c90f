// A run that stops and goes on is the run that never stopped.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "parallel/comm/make.h"
#include "tests/trainer/interrupted_run.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/export/export_hf.h"
#include "trainer/job/generation.h"
#include "trainer/job/resume.h"

namespace switchyard::test {
namespace {

class Resume : public InterruptedRun {};

// The last digit of losses, norms, rates and loads.
TEST_F(Resume, SameLayoutGoesOnBitForBit) {
  for (const Layout layout : {Layout{1, 1}, Layout{4, 2}}) {
    SCOPED_TRACE(to_string(layout));
    const std::string name = std::to_string(layout.world);
    const Steps straight = run("straight" + name, layout, 20);
    run("halted" + name, layout, 10);
    EXPECT_EQ(run("halted" + name, layout, 20), straight);
  }
}

// As after a kill between the last checkpoint's rename and what follows it.
TEST_F(Resume, AFinishedRunGetsItsLatestBackAndDropsOldCheckpoints) {
  run("run", {1, 1}, 10);
  const auto root = std::filesystem::path(folder_ / "run") / "checkpoints";
  std::filesystem::remove(root / "LATEST");
  run("run", {1, 1}, 10, "checkpoint { keep_last: 1 }");
  EXPECT_EQ(read_text(root / "LATEST"), "step_00000010\n");
  EXPECT_EQ(list_steps(root), std::vector<int64_t>{10});
}

TEST_F(Resume, Bf16GoesOnBitForBit) {
  const Steps straight = run("straight", {2, 2}, 12, "precision: BF16");
  run("halted", {2, 2}, 6, "precision: BF16");
  EXPECT_EQ(run("halted", {2, 2}, 12, "precision: BF16"), straight);
}

TEST_F(Resume, SharesOfTheLastGlobalBatchGoOnBitForBit) {
  const std::string global = "model { moe { balance: GLOBAL aux_loss_coeff: 0.3 } }";
  const Steps straight = run("straight", {1, 1}, 12, global);
  run("halted", {1, 1}, 5, global);
  EXPECT_EQ(run("halted", {1, 1}, 12, global), straight);
}

TEST_F(Resume, GateNoiseGoesOnBitForBit) {
  const std::string noisy = "model { moe { noisy_gate: true } }";
  const Steps straight = run("straight", {2, 2}, 10, noisy);
  run("halted", {2, 2}, 5, noisy);
  EXPECT_EQ(run("halted", {2, 2}, 10, noisy), straight);
  CheckpointReader reader(checkpoint("halted", 10));
  std::vector<float> weight(4 * 32);
  reader.read("model.layers.1.mlp.gate.noise_weight", weight.data(), DType::kF32);
  EXPECT_NE(weight, std::vector<float>(weight.size()));  // it is trained
}

TEST_F(Resume, AnotherLayoutGivesTheSameTraining) {
  const Steps straight = run("straight", {1, 1}, 20);
  run("run", {4, 4}, 5);
  run("run", {2, 1}, 10);
  run("run", {4, 2}, 15);
  expect_same_training(run("run", {1, 1}, 20), straight, 1e-5);
}

TEST_F(Resume, AChangedModelIsRefusedByName) {
  run("run", {1, 1}, 5);
  const auto again = [&](const char* changes) { return [=, this] { run("run", {2, 2}, 20, changes); }; };
  EXPECT_EQ(fault_of(again("model { moe { top_k: 1 normalize_topk: false } }"), "model.moe.top_k is 2"),
            Fault::kUsage);
  EXPECT_EQ(fault_of(again("model { rope_theta: 500 }"), "model.rope_theta"), Fault::kUsage);
  EXPECT_EQ(read_steps(folder_ / "run").size(), 5u);
}

TEST_F(Resume, AnotherBatchSizeIsRefusedByNameAndValues) {
  run("run", {1, 1}, 5);
  const auto again = [this] { run("run", {1, 1}, 20, "train { global_batch_size: 16 }"); };
  EXPECT_EQ(fault_of(again, "train.global_batch_size is 8 in the checkpoint and 16 in the config"),
            Fault::kUsage);
  EXPECT_EQ(read_steps(folder_ / "run").size(), 5u);
}

TEST_F(Resume, AnotherSeedOrSequenceLengthIsWarnedOfOnce) {
  run("run", {2, 2}, 5);
  const auto warnings = [this](int64_t steps, const std::string& changes) {
    testing::internal::CaptureStderr();
    run("run", {2, 2}, steps, changes);
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(warnings(6, ""), "");
  const std::string seed = warnings(7, "seed: 9");
  EXPECT_NE(seed.find("seed was 5 and is 9 now"), std::string::npos) << seed;
  EXPECT_EQ(std::count(seed.begin(), seed.end(), '\n'), 1) << seed;
  const std::string length = warnings(8, "seed: 9 train { sequence_length: 16 }");
  EXPECT_NE(length.find("train.sequence_length was 32 and is 16 now"), std::string::npos) << length;
  EXPECT_EQ(std::count(length.begin(), length.end(), '\n'), 1) << length;
}

TEST_F(Resume, SamplesAfterTheCheckpointAreDroppedAndOtherFilesKept) {
  run("run", {1, 1}, 5);
  const std::filesystem::path samples = std::filesystem::path(folder_ / "run") / "samples";
  const auto left = [&] {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(samples))
      names.insert(entry.path().filename());
    return names;
  };
  for (const char* name : {"step_00000005.txt", "step_00000006.txt", "step_123456789.txt", "step_best.txt",
                           "step_00000009.txt.bak", "notes.txt"}) {
    std::ofstream(samples / name) << "text";
  }
  run("run", {1, 1}, 6);
  EXPECT_EQ(left(), (std::set<std::string>{"notes.txt", "step_00000005.txt", "step_00000009.txt.bak",
                                           "step_best.txt"}));
  run("run", {1, 1}, 2, "", false);
  EXPECT_FALSE(left().contains("step_00000005.txt"));
}

TEST_F(Resume, AFinishedRunIsLeftAsItIs) {
  const Steps steps = run("run", {1, 1}, 5);
  const std::string metrics = read_text(folder_ / "run/metrics.jsonl");
  const auto written = std::filesystem::last_write_time(checkpoint("run", 5));
  EXPECT_EQ(run("run", {2, 2}, 5), steps);
  EXPECT_EQ(read_text(folder_ / "run/metrics.jsonl"), metrics);
  EXPECT_EQ(std::filesystem::last_write_time(checkpoint("run", 5)), written);
}

TEST_F(Resume, MoreStepsExtendAFinishedRun) {
  const std::string constant = "schedule { kind: CONSTANT }";
  const Steps straight = run("straight", {1, 1}, 9, constant);
  run("run", {1, 1}, 6, constant);
  EXPECT_EQ(run("run", {1, 1}, 9, constant), straight);
}

TEST_F(Resume, LinesAfterTheCheckpointAreDroppedAndTheOthersKept) {
  const Steps straight = run("run", {1, 1}, 12);
  const std::string metrics = read_text(folder_ / "run/metrics.jsonl");
  std::filesystem::remove_all(checkpoint("run", 12));
  std::ofstream(folder_ / "run/metrics.jsonl", std::ios::app)
      << "{\"step\":13,\"lo";  // a kill in the middle of a line
  EXPECT_EQ(run("run", {1, 1}, 12), straight);
  const std::string after = read_text(folder_ / "run/metrics.jsonl");
  const size_t kept = metrics.find("{\"step\":11,");
  EXPECT_EQ(after.substr(0, kept), metrics.substr(0, kept));
}

TEST_F(Resume, NeverStartsAgain) {
  run("run", {1, 1}, 4);
  const Steps again = run("run", {1, 1}, 6, "", false);
  EXPECT_EQ(again, run("fresh", {1, 1}, 6));
}

// A run that takes another's place and ends before its first checkpoint leaves nothing to go on with.
TEST_F(Resume, NeverLeavesNoCheckpointOfTheRunBefore) {
  run("run", {1, 1}, 5);
  const std::string checkpoints = folder_ / "run/checkpoints";
  ASSERT_EQ(list_steps(checkpoints), (std::vector<int64_t>{5}));
  TrainingJob(config(6), make_self(), {.run_dir = folder_ / "run", .resume = false});
  EXPECT_EQ(list_steps(checkpoints), std::vector<int64_t>{});
  EXPECT_EQ(run("run", {1, 1}, 6), run("fresh", {1, 1}, 6));
  EXPECT_FALSE(std::filesystem::exists(checkpoints + "/.step_00000005.replaced"));
}

// Commands other than train know the tensors, and a Hugging Face folder has no place for them.
TEST_F(Resume, WhatOnlyTrainingNeedsIsNotExported) {
  run("run", {1, 1}, 2,
      "model { moe { balance: GLOBAL noisy_gate: true expert_bias: false bias_update_rate: 0 } }");
  CheckpointReader reader(checkpoint("run", 2));
  EXPECT_TRUE(reader.contains("model.layers.1.mlp.gate.load_excess"));
  EXPECT_TRUE(reader.contains("model.layers.1.mlp.gate.noise_weight"));
  export_hf({.checkpoint = checkpoint("run", 2), .out = folder_ / "out"});
  const SafetensorsFile exported(folder_ / "out/model.safetensors");
  EXPECT_EQ(exported.tensors().size() + 4, reader.names("model.").size() + reader.names("lm_head").size());
  for (const auto& [name, tensor] : exported.tensors()) {
    EXPECT_EQ(name.find("excess"), std::string::npos) << name;
    EXPECT_EQ(name.find("noise"), std::string::npos) << name;
  }
}

TEST_F(Resume, WeightsThatAreNotFiniteAreNotSaved) {
  Config config = small_config(
      folder_ / "tokens", {kInterrupted, "optimizer { lr: 1e30 weight_decay: 1e20 } train { steps: 1 }"});
  const auto once = [&] { train(config, {2, 2}, folder_ / "run"); };
  EXPECT_EQ(fault_of(once, "is not finite after the last update"), Fault::kNonFinite);
  EXPECT_EQ(list_steps(std::filesystem::path(folder_ / "run") / "checkpoints"), std::vector<int64_t>());
}

// All ranks stop together, at once.
TEST_F(Resume, AFileOfMetricsThatCannotBeWrittenStopsAllRanks) {
  std::filesystem::create_directories(std::filesystem::path(folder_ / "run") / "metrics.jsonl");
  EXPECT_EQ(fault_of([&] { run("run", {2, 2}, 5); }, "metrics.jsonl"), Fault::kUsage);
}

TEST_F(Resume, ATensorOfAnExpertThatThereIsNotIsRefused) {
  run("run", {1, 1}, 5);
  CheckpointReader old(checkpoint("run", 5));
  const float value = 1;
  CheckpointWriter writer(folder_ / "more", 5);
  const NamedTensor stranger[] = {{"model.layers.0.mlp.experts.4.up_proj.weight", DType::kF32, {1}, &value}};
  const std::string shards[] = {writer.write_shard("weights", stranger)};
  writer.finish(shards, {{"model.txtpb", old.text("model.txtpb")}});
  CheckpointReader reader(folder_ / "more");
  ParameterStore store;
  const Group self = make_self();
  const Transformer model(store, config(5).model, DType::kF32, Axis{self, self});
  store.materialize(Device::kCpu, 1, false);
  EXPECT_EQ(fault_of([&] { load_weights(reader, store); }, "experts.4.up_proj.weight is not in the model"),
            Fault::kData);
}

TEST_F(Resume, TextBeyondTheVocabularyIsNotContinued) {
  ParameterStore store;
  const Group self = make_self();
  const Transformer model(store, config(5).model, DType::kF32, Axis{self, self});
  store.materialize(Device::kCpu, 1, false);
  for (const int32_t id : {61, -1}) {
    const auto continued = [&] { generate(model, {3, id}, std::nullopt, {}, self, [](int32_t) {}); };
    EXPECT_EQ(fault_of(continued, "is not in the model's vocabulary of 61"), Fault::kData);
  }
}

TEST_F(Resume, ADamagedCheckpointIsNamedAndTheOneBeforeUsed) {
  const Steps straight = run("run", {2, 2}, 15);
  damage(checkpoint("run", 15));
  testing::internal::CaptureStderr();
  const Steps again = run("run", {2, 2}, 15);
  const std::string warnings = testing::internal::GetCapturedStderr();
  EXPECT_NE(warnings.find("warning: "), std::string::npos) << warnings;
  EXPECT_NE(warnings.find("step_00000015"), std::string::npos) << warnings;
  EXPECT_EQ(again, straight);
}

TEST_F(Resume, WithoutAnIntactCheckpointNothingIsTrained) {
  run("run", {1, 1}, 10);
  const std::string metrics = read_text(folder_ / "run/metrics.jsonl");
  damage(checkpoint("run", 5));
  damage(checkpoint("run", 10));
  EXPECT_EQ(fault_of([&] { run("run", {2, 2}, 15); }, "none of its 2 checkpoints is intact"), Fault::kData);
  EXPECT_EQ(read_text(folder_ / "run/metrics.jsonl"), metrics);
}

}  // namespace
}  // namespace switchyard::test
