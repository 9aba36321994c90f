// optimizer { moments: BF16 }: what a job promises with float32 moments holds, its loss stays close, and
// checkpoints go from one to the other.
#include "parallel/comm/make.h"
#include "parallel/data/shares.h"
#include "tests/trainer/interrupted_run.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/job/plan.h"

namespace switchyard::test {
namespace {

constexpr const char* kBf16 = "optimizer { moments: BF16 }";

class Bf16Moments : public InterruptedRun {
 protected:
  std::vector<float> values(CheckpointReader& reader, const std::string& name) {
    std::vector<float> values(reader.entry(name).numel());
    reader.read(name, values.data(), DType::kF32);
    return values;
  }
};

std::vector<float> rounded(std::vector<float> values) {
  for (float& x : values) x = static_cast<float>(BF16(x));
  return values;
}

TEST_F(Bf16Moments, LayoutsGiveTheSameTraining) {
  const Steps alone = run("alone", {1, 1}, 20, kBf16);
  for (const Layout& layout : {Layout{2, 1}, Layout{2, 2}, Layout{4, 2}}) {
    SCOPED_TRACE(to_string(layout));
    expect_same_training(run(to_string(layout), layout, 20, kBf16), alone, 1e-5);
  }
}

// The loss falls by a twentieth and more; of that the moments' rounding may change a tenth.
TEST_F(Bf16Moments, LossStaysCloseToThatOfFloat32Moments) {
  const Steps wide = run("wide", {1, 1}, 20), narrow = run("narrow", {1, 1}, 20, kBf16);
  EXPECT_LT(wide.back().loss, 0.95 * wide.front().loss);
  EXPECT_EQ(narrow.front().loss, wide.front().loss);
  EXPECT_NE(narrow.back().loss, wide.back().loss);
  for (size_t i = 0; i < wide.size(); ++i)
    EXPECT_NEAR(narrow[i].loss, wide[i].loss, 5e-3 * wide[i].loss) << i;
}

TEST_F(Bf16Moments, GoOnBitForBit) {
  for (const Layout layout : {Layout{1, 1}, Layout{4, 2}}) {
    for (const std::string precision : {"precision: FP32 ", "precision: BF16 "}) {
      SCOPED_TRACE(precision + to_string(layout));
      const std::string name = precision + std::to_string(layout.world), changes = precision + kBf16;
      const Steps straight = run("straight" + name, layout, 12, changes);
      run("halted" + name, layout, 6, changes);
      EXPECT_EQ(run("halted" + name, layout, 12, changes), straight);
    }
  }
}

// Every moment of a checkpoint of either kind, as a model with either kind reads it and writes it again.
TEST_F(Bf16Moments, CheckpointsOfEitherKindAreReadAsEither) {
  run("F32", {2, 2}, 5);
  run("BF16", {2, 2}, 5, kBf16);
  const Group self = make_self();
  const Mesh mesh = make_mesh(self, 1, Device::kCpu);
  for (const std::string from : {"F32", "BF16"}) {
    for (const std::string to : {"F32", "BF16"}) {
      SCOPED_TRACE(from + " to " + to);
      CheckpointReader reader(checkpoint(from, 5));
      ParameterStore store;
      const Transformer model(store, config(5).model, DType::kF32, mesh.ep);
      store.materialize(Device::kCpu, 1, true, false,
                        segment_options(mesh, to == "BF16" ? DType::kBF16 : DType::kF32));
      load_weights(reader, store);
      load_moments(reader, store);
      const std::string again = folder_ / ("again " + from + to);
      save_checkpoint(again, 5, store, mesh, {{"model.txtpb", reader.text("model.txtpb")}});
      CheckpointReader copy(again);
      for (const std::string prefix : {"adam_m.", "adam_v."}) {
        const auto names = reader.names(prefix);
        EXPECT_EQ(copy.names(prefix), names);
        EXPECT_FALSE(names.empty());
        for (const std::string& name : names) {
          EXPECT_EQ(name_of(reader.entry(name).dtype), from);
          EXPECT_EQ(name_of(copy.entry(name).dtype), to);
          const std::vector<float> read = values(reader, name);
          EXPECT_EQ(values(copy, name), to == "BF16" ? rounded(read) : read) << name;
        }
      }
      for (const std::string& name : reader.names("model."))
        EXPECT_EQ(values(copy, name), values(reader, name));
    }
  }
}

TEST_F(Bf16Moments, ARunMayChangeThemWhenItResumes) {
  const Steps wide = run("wide", {2, 2}, 20);
  for (const std::string first : {"", kBf16}) {
    const std::string name = "changed " + first;
    run(name, {2, 2}, 10, first);
    const Steps changed = run(name, {4, 2}, 20, first.empty() ? kBf16 : "");
    ASSERT_EQ(changed.size(), wide.size());
    for (size_t i = 0; i < wide.size(); ++i)
      EXPECT_NEAR(changed[i].loss, wide[i].loss, 5e-3 * wide[i].loss) << i;
  }
}

// 8 bytes a parameter become 4, of the rank's part, where gradients are 4 of all; what else the plan counts
// stays, but for what the last page has room for.
TEST_F(Bf16Moments, ArePlanned) {
  constexpr int64_t kPage = 2 << 20;  // in which memory is counted
  const std::string large = "model { hidden_size: 256 moe { moe_intermediate_size: 1024 } } ";
  for (const int64_t world : {1, 4}) {
    for (const std::string precision : {"precision: FP32 ", "precision: BF16 "}) {
      SCOPED_TRACE(precision + std::to_string(world));
      const Plan wide = make_plan(config(20, large + precision), world);
      const Plan narrow = make_plan(config(20, large + precision + kBf16), world);
      const int64_t saved = wide.optimizer - narrow.optimizer;
      EXPECT_EQ(saved * world, wide.gradients);
      EXPECT_EQ(narrow.weights, wide.weights);
      EXPECT_EQ(narrow.gradients, wide.gradients);
      EXPECT_NEAR(narrow.activations, wide.activations, 2 * kPage);
      EXPECT_GT(saved, 2 * kPage);
    }
  }
}

}  // namespace
}  // namespace switchyard::test
