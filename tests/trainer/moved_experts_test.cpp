// Experts that have changed ranks go on where they stood, or at another layout.
#include <algorithm>

#include "parallel/expert/slots.h"
#include "tests/trainer/interrupted_run.h"
#include "trainer/job/resume.h"

namespace switchyard::test {
namespace {

class MovedExperts : public InterruptedRun {
 protected:
  // Does an expert stand elsewhere than at the start?
  bool any_moved(const std::string& run, int64_t step) {
    const std::string file = checkpoint(run, step) + "/state.json";
    const auto layers = read_expert_state(read_text(file), file, 2, 8);
    return std::any_of(layers.begin(), layers.end(),
                       [](const ExpertState& layer) { return layer.slots != first_slots(8); });
  }
};

constexpr const char* kMoving =
    "model { moe { num_experts: 8 aux_loss_coeff: 0 bias_update_rate: 0 } } parallel { "
    "rebalance_over_steps: 3 shadow_pairs: 3 } train { sequence_length: 128 } ";

constexpr const char* kBf16Moments = "optimizer { moments: BF16 } ";

// Experts stand where they stood, and the loads seen so far count.
TEST_F(MovedExperts, GoOnBitForBit) {
  for (const char* precision : {"precision: FP32 ", "precision: BF16 ", kBf16Moments}) {
    const std::string name = precision, changes = precision + std::string(kMoving);
    const Steps straight = run("straight" + name, {4, 2}, 14, changes);
    EXPECT_GT(sum_of_metric(folder_ / ("straight" + name), "experts_shadowed"), 0);
    run("halted" + name, {4, 2}, 7, changes);
    EXPECT_TRUE(any_moved("halted" + name, 7));
    EXPECT_EQ(run("halted" + name, {4, 2}, 14, changes), straight);
  }
}

// Experts whose masters and moments are in parts, on two ranks each.
TEST_F(MovedExperts, TrainAsIfTheyHadStayed) {
  for (const char* moments : {"", kBf16Moments}) {
    const std::string name = moments, changes = moments + std::string(kMoving);
    const Steps alone = run("alone" + name, {1, 1}, 14, changes);
    const Steps moved = run("moved" + name, {4, 2}, 14, changes);
    EXPECT_TRUE(any_moved("moved" + name, 14));
    expect_same_training(moved, alone, 1e-5);
  }
}

// Whatever the order of degrees, one rank of an ep group included, which has every expert in its own slot.
TEST_F(MovedExperts, GoOnAtAnyLayout) {
  const Steps alone = run("alone", {1, 1}, 14, kMoving);
  for (const Layout& next : {Layout{4, 4}, Layout{1, 1}, Layout{2, 1}, Layout{4, 2}}) {
    SCOPED_TRACE(to_string(next));
    const std::string name = "spread" + to_string(next);
    run(name, {2, 2}, 7, kMoving);
    EXPECT_TRUE(any_moved(name, 7));
    run(name, next, 10, kMoving);
    expect_same_training(run(name, {2, 2}, 14, kMoving), alone, 1e-5);
  }
}

TEST(ExpertStateOfARun, IsReadStrictly) {
  const auto read = [](const std::string& text) { return read_expert_state(text, "state.json", 1, 2); };
  const auto state = read(R"({"experts":[{"slots":[1,0],"loads":[3,4],"tried":[0,1],"spared":-5}]})");
  ASSERT_EQ(state.size(), 1u);
  EXPECT_EQ(state[0].slots, (Slots{1, 0}));
  EXPECT_EQ(state[0].trial.loads, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(state[0].trial.tried, (Slots{0, 1}));
  EXPECT_EQ(state[0].trial.spared, -5);
  EXPECT_TRUE(read(R"({"step":3})").empty());
  const auto refused = [&](const std::string& experts, const char* message) {
    EXPECT_EQ(fault_of([&] { read(R"({"experts":)" + experts + "}"); }, message), Fault::kData) << experts;
  };
  refused("[]", "experts is not a list of 1 layers");
  refused("[3]", "experts[0].slots is not 2 numbers");
  refused(R"([{"slots":[0]}])", "experts[0].slots is not 2 numbers");
  refused(R"([{"slots":[1,"x"]}])", "experts[0].slots is not 2 numbers");
  refused(R"([{"slots":[1,1]}])", "slots: an expert is missing or stands twice");
  refused(R"([{"slots":[1,0]}])", "experts[0].loads is not 2 numbers");
  refused(R"([{"slots":[1,0],"loads":[3,4],"tried":[0,0]}])", "tried: an expert is missing or stands twice");
  refused(R"([{"slots":[1,0],"loads":[3,4],"tried":[0,1]}])", "spared is not a whole number");
}

}  // namespace
}  // namespace switchyard::test
