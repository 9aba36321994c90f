// A run that starts from the weights of another: train.init_from.
#include <filesystem>

#include "parallel/comm/make.h"
#include "tests/trainer/interrupted_run.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"

namespace switchyard::test {
namespace {

class InitFrom : public InterruptedRun {};

TEST_F(InitFrom, TakesWeightsButNoMoments) {
  run("first", {1, 1}, 10);
  CheckpointReader old(checkpoint("first", 10));
  Config next = config(0, "");
  next.train.init_from = folder_ / "first";
  train(next, {2, 2}, folder_ / "second");
  CheckpointReader taken(checkpoint("second", 0));
  int64_t weights = 0;
  for (const std::string& name : taken.names()) {
    if (name.starts_with("adam_")) {
      std::vector<float> moment(taken.bytes(name).size() / 4);
      taken.read(name, moment.data(), DType::kF32);
      EXPECT_EQ(moment, std::vector<float>(moment.size())) << name;
    } else {
      EXPECT_EQ(taken.bytes(name), old.bytes(name)) << name;
      ++weights;
    }
  }
  EXPECT_EQ(weights, static_cast<int64_t>(taken.names("model.").size() + taken.names("lm_head").size()));
  EXPECT_GT(weights, 20);
}

// What only training with them needs goes with them, in either direction.
TEST_F(InitFrom, MayChangeTheBalanceLossAndTheNoise) {
  const std::string global = "model { moe { balance: GLOBAL noisy_gate: true } }";
  run("plain", {1, 1}, 2);
  run("global", {1, 1}, 2, global);
  const auto start = [&](const std::string& name, const std::string& changes, const std::string& from) {
    Config next = config(1, changes);
    next.train.init_from = folder_ / from;
    return train(next, {1, 1}, folder_ / name).size();
  };
  EXPECT_EQ(start("add", global, "plain"), 1u);
  EXPECT_EQ(start("drop", "", "global"), 1u);
  const std::string unbiased = "model { moe { expert_bias: false bias_update_rate: 0 } }";
  EXPECT_EQ(start("without_bias", unbiased, "plain"), 1u);
  EXPECT_EQ(start("with_bias", "", "without_bias"), 1u);
}

// A description of where the weights came from stays with them: the ends of texts, the length of the context.
TEST_F(InitFrom, WhatTheModelCameFromIsCarriedOn) {
  run("first", {1, 1}, 2);
  CheckpointReader old(checkpoint("first", 2));
  const std::string source = R"({"eos_token_id":7,"max_position_embeddings":99})";
  {
    CheckpointWriter writer(folder_ / "imported", 0);
    std::vector<std::vector<float>> values;
    std::vector<NamedTensor> tensors;
    values.reserve(old.names().size());
    for (const std::string& name : old.names()) {
      if (name.starts_with("adam_")) continue;
      values.emplace_back(old.bytes(name).size() / 4);
      old.read(name, values.back().data(), DType::kF32);
      tensors.push_back({name, DType::kF32, old.entry(name).shape, values.back().data()});
    }
    const std::string shards[] = {writer.write_shard("weights", tensors)};
    writer.finish(shards, {{"model.txtpb", old.text("model.txtpb")}, {kSourceText, source}});
  }
  Config next = config(2);
  next.train.init_from = folder_ / "imported";
  train(next, {1, 1}, folder_ / "second");
  next.train.steps = 3;
  std::filesystem::remove_all(std::filesystem::path(folder_ / "imported"));
  train(next, {1, 1}, folder_ / "second");  // resumed
  EXPECT_EQ(CheckpointReader(checkpoint("second", 3)).text(kSourceText), source);
}

// Where the data do not say what their tokens are.
TEST_F(InitFrom, TheTokenizerIsCarriedOn) {
  run("first", {1, 1}, 1);
  CheckpointReader first(checkpoint("first", 1));
  ASSERT_TRUE(first.has_text(kTokenizerText));
  std::filesystem::remove(folder_ / "tokens.json");
  run("without", {1, 1}, 1);
  EXPECT_FALSE(CheckpointReader(checkpoint("without", 1)).has_text(kTokenizerText));
  Config next = config(1);
  next.train.init_from = folder_ / "first";
  train(next, {2, 2}, folder_ / "second");
  EXPECT_EQ(CheckpointReader(checkpoint("second", 1)).text(kTokenizerText), first.text(kTokenizerText));
}

TEST_F(InitFrom, TheRunThatIsReplacedIsNoSource) {
  run("run", {1, 1}, 1);
  Config next = config(2);
  next.train.init_from = folder_ / "run";
  const auto replace = [&] { TrainingJob(next, make_self(), {.run_dir = folder_ / "run", .resume = false}); };
  EXPECT_EQ(fault_of(replace, "is of the run that --resume never replaces"), Fault::kUsage);
  EXPECT_EQ(list_steps(folder_ / "run/checkpoints"), std::vector<int64_t>{1});
}

TEST_F(InitFrom, LowersTheFirstLoss) {
  const Steps first = run("first", {1, 1}, 10);
  Config next = config(1);
  next.train.init_from = folder_ / "first";
  const Steps second = train(next, {4, 2}, folder_ / "second");
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].step, 1);
  EXPECT_LT(second[0].loss, 0.95 * first[0].loss);
}

}  // namespace
}  // namespace switchyard::test
