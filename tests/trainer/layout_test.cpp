// The layout does not change the training: any number of ranks and any EP degree give the losses and gradient
// norms of one rank. Only the order of float32 sums differs.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"

namespace switchyard::test {
namespace {

struct Variant {
  const char* name;
  const char* changes;
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

constexpr Variant kVariants[] = {
    {"Dropless", ""},
    {"DropsByProbability", "model { moe { capacity_factor: 0.8 token_drop_policy: PROBS } }"},
    {"DropsByPosition", "model { moe { capacity_factor: 0.8 token_drop_policy: POSITION } }"},
    {"SigmoidWithGroups",
     "model { moe { num_experts: 8 score_function: SIGMOID num_groups: 4 group_topk: 2 topk_scaling_factor: "
     "2.5 "
     "balance: SEQUENCE } }"},
    {"HybridWithGatedSharedExpert",
     "model { moe { dense_weight: 0.3 shared_expert_intermediate_size: 16 shared_expert_gate: true } }"},
    {"DenseLayersBetweenRecomputedTiedHead",
     "model { num_layers: 4 moe_layer_interval: 2 recompute: true tie_embeddings: true }"},
    {"Jitter", "model { moe { jitter_eps: 0.05 } }"},
    {"BalanceOfTheGlobalBatch", "model { moe { balance: GLOBAL aux_loss_coeff: 0.1 } }"},
    {"NoisyGate", "model { moe { noisy_gate: true } }"},
    {"UnevenExperts", "model { moe { num_experts: 6 pre_softmax: false } }"},
    {"ExpertsMove",
     "parallel { rebalance_over_steps: 2 } train { sequence_length: 128 } model { moe { num_experts: 8 "
     "capacity_factor: 1.1 "
     "aux_loss_coeff: 0 "
     "bias_update_rate: 0 } }"},
    {"ShadowExperts",
     "parallel { shadow_pairs: 2 } model { moe { num_experts: 8 aux_loss_coeff: 0 bias_update_rate: 0 } }"},
    {"ShadowExpertsRecomputed",
     "parallel { shadow_pairs: 2 } model { recompute: true moe { num_experts: 6 capacity_factor: 1.1 "
     "dense_weight: 0.3 } }"},
    {"TwoSequencesAMicroBatch",
     "train { global_batch_size: 8 micro_batch_size: 2 } model { mask_documents: true }"},
};

constexpr Layout kLayouts[] = {{2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}};

class OneConfig : public testing::Test {
 protected:
  OneConfig() { write_training_tokens(folder_ / "tokens"); }
  Config small(const std::string& changes) { return small_config(folder_ / "tokens", {changes}); }
  Steps run(const Config& config, Layout layout) {
    return train(config, layout, folder_ / ("run" + std::to_string(++runs_)));
  }
  // Of the last run, over its steps.
  double total(const char* metric) {
    return sum_of_metric(folder_ / ("run" + std::to_string(runs_)), metric);
  }
  Steps run(const std::string& changes, Layout layout) { return run(small(changes), layout); }

 private:
  TemporaryFolder folder_;
  int runs_ = 0;
};

class LayoutTest : public OneConfig, public testing::WithParamInterface<Variant> {};

TEST_P(LayoutTest, GivesTheTrainingOfOneRank) {
  const Steps alone = run(GetParam().changes, {1, 1});
  ASSERT_EQ(alone.size(), 20u);
  ASSERT_LT(alone.back().loss, 0.95 * alone.front().loss);  // it trains at all
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(to_string(layout));
    expect_same_training(run(GetParam().changes, layout), alone, 1e-5);
    const bool shadows = std::string_view(GetParam().name).starts_with("Shadow") && layout.expert > 1;
    EXPECT_EQ(total("experts_shadowed") > 0, shadows);
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, LayoutTest, testing::ValuesIn(kVariants),
                         [](const auto& info) { return std::string(info.param.name); });

// And they do move, off the fuller rank.
TEST_F(OneConfig, ExpertsMoveOffAFullRank) {
  Config config = small("model { moe { num_experts: 8 aux_loss_coeff: 0 bias_update_rate: 0 } }");
  const auto overload = [&](int64_t over_steps) {
    config.parallel.rebalance_over_steps = over_steps;
    const TemporaryFolder folder;
    train(config, {4, 4}, folder / "run");
    std::ifstream lines(folder / "run/metrics.jsonl");
    double sum = 0, moved = 0;
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      moved += json["experts_moved"].get<double>();
      for (const auto& layer : json["layers"]) sum += layer["rank_overload"].get<double>();
    }
    EXPECT_EQ(moved > 0, over_steps > 0);
    return sum;
  };
  EXPECT_LT(overload(2), 0.9 * overload(0));
}

// The fullest rank computes less, and what is said of the exchange is true of it.
TEST_F(OneConfig, ShadowsTakeWorkOffAFullRank) {
  Config config = small("model { moe { num_experts: 8 aux_loss_coeff: 0 bias_update_rate: 0 } }");
  run(config, {2, 2});
  EXPECT_EQ(total("shadow_bytes"), 0);
  const double without = total("exchange_bytes");
  config.parallel.shadow_pairs = 2;
  run(config, {2, 2});
  const double shadows = total("experts_shadowed");
  EXPECT_GT(shadows, 20);
  // A copy and its gradient: three matrices of a hidden size of 32 by the experts' width, on one rank each.
  const double matrix =
      static_cast<double>(config.model.hidden_size * config.model.moe->moe_intermediate_size);
  EXPECT_EQ(total("shadow_bytes"), shadows * 2 * 3 * matrix * 4 / 2);
  EXPECT_LT(total("exchange_bytes"), without);
}

TEST_F(OneConfig, RepeatsBitForBit) {
  EXPECT_EQ(run("", {1, 1}), run("", {1, 1}));
  EXPECT_EQ(run("", {4, 2}), run("", {4, 2}));
  EXPECT_EQ(run("parallel { shadow_pairs: 2 }", {4, 2}), run("parallel { shadow_pairs: 2 }", {4, 2}));
  EXPECT_GT(total("experts_shadowed"), 0);
}

TEST_F(OneConfig, CapacityDropsPairs) {
  for (const StepLine& line : run("model { moe { capacity_factor: 0.8 } } train { steps: 2 }", {2, 2})) {
    for (const double rate : line.drop_rate) EXPECT_GE(rate, 0.19);
  }
}

// How a global batch is cut into micro-batches is nothing to Balance::kGlobal, unlike to Balance::kAux.
TEST_F(OneConfig, GlobalBalanceDoesNotSeeMicroBatches) {
  const auto aux_losses = [&](Balance balance, int64_t micro_batch) {
    Config config = small("model { moe { aux_loss_coeff: 0.3 } } train { steps: 6 }");
    config.model.moe->balance = {balance};
    config.train.micro_batch_size = micro_batch;
    std::vector<double> losses;
    for (const StepLine& line : run(config, {1, 1})) losses.push_back(line.aux_loss);
    return losses;
  };
  const auto one = aux_losses(Balance::kGlobal, 1), four = aux_losses(Balance::kGlobal, 4);
  ASSERT_EQ(one.size(), 6u);
  EXPECT_NEAR(one[0], 2 * 0.3, 1e-6);  // nothing is known yet: the coefficient, in each of two layers
  EXPECT_GT(one[1], 2 * 0.3 + 1e-4);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(four[i], one[i], 1e-5) << i;
  EXPECT_GT(std::abs(aux_losses(Balance::kAux, 4)[0] - aux_losses(Balance::kAux, 1)[0]), 1e-3);
}

TEST_F(OneConfig, RecomputeChangesNoBit) {
  EXPECT_EQ(run("model { recompute: true }", {2, 2}), run("", {2, 2}));
  const Steps again = run("parallel { shadow_pairs: 2 } model { recompute: true }", {2, 2});
  const double shadows = total("experts_shadowed");
  EXPECT_GT(shadows, 0);
  EXPECT_EQ(again, run("parallel { shadow_pairs: 2 }", {2, 2}));
  EXPECT_EQ(total("experts_shadowed"), shadows);
}

TEST_F(OneConfig, ProgressLinesComeAsOftenAsAsked) {
  const auto lines = [&](const std::string& log) {
    testing::internal::CaptureStdout();
    run("train { steps: 5 } log { " + log + " }", {1, 1});
    const std::string out = testing::internal::GetCapturedStdout();
    EXPECT_NE(out.find("done: step 5"), std::string::npos) << out;
    std::string steps;
    for (int step = 1; step <= 5; ++step) {
      if (out.find(concat("step ", step, "/5 | loss ")) != std::string::npos) steps += std::to_string(step);
    }
    return steps;
  };
  EXPECT_EQ(lines("every_steps: 0"), "");
  EXPECT_EQ(lines("every_steps: 1"), "12345");
  EXPECT_EQ(lines("every_steps: 3"), "135");  // the first and the last as well
}

// Layouts so agree on the clip as well.
TEST_F(OneConfig, IsClipped) {
  const Steps clipped = run("", {1, 1}), free = run("optimizer { clip_norm: 0 }", {1, 1});
  EXPECT_GT(clipped.front().grad_norm, 0.5);
  EXPECT_EQ(clipped.front().grad_norm, free.front().grad_norm);  // which is before clipping
  EXPECT_GT(std::abs(clipped.back().loss - free.back().loss), 1e-4);
}

// A bf16 product of rows in another order rounds in other places, and a few of the router's choices flip.
// 3e-2 is a tenth of what the loss falls by.
TEST_F(OneConfig, Bf16LayoutsAgreeLoosely) {
  const Steps alone = run("precision: BF16", {1, 1});
  for (const Layout& layout : {Layout{2, 2}, Layout{4, 2}}) {
    SCOPED_TRACE(to_string(layout));
    const Steps steps = run("precision: BF16", layout);
    ASSERT_EQ(steps.size(), alone.size());
    for (size_t i = 0; i < steps.size(); ++i)
      EXPECT_NEAR(steps[i].loss, alone[i].loss, 3e-2 * alone[i].loss) << i;
  }
}

// Of two thread-ranks one comes last to each exchange, and the other waits for it.
TEST(ExchangeTime, HasAPartThatIsWaiting) {
  const TemporaryFolder folder;
  write_training_tokens(folder / "tokens");
  train(small_config(folder / "tokens"), {2, 2}, folder / "run");
  std::ifstream lines(folder / "run/metrics.jsonl");
  double waited = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    const double waiting = json["exchange_wait_seconds"];
    EXPECT_GE(waiting, 0);
    EXPECT_LT(waiting, json["exchange_seconds"].get<double>());
    waited += waiting;
  }
  EXPECT_GT(waited, 0);
}

}  // namespace
}  // namespace switchyard::test
