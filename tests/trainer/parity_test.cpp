// Models made, scored and trained by PyTorch and transformers (tests/python/make_golden.py) are imported,
// scored and trained here, and must come out the same. Training starts from the same weights and takes the
// same batches; PyTorch did it in float64.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/commands/commands.h"
#include "trainer/export/export_hf.h"
#include "trainer/export/import_hf.h"

namespace switchyard::test {
namespace {

constexpr double kLogits = 1e-4;                  // absolute
constexpr double kLoss = 1e-4, kGradNorm = 1e-3;  // relative

// dense: Llama with odd sizes and a tied head. moe: Qwen3-MoE. grouped: GLM-4-MoE with a moving selection
// bias, groups, a shared expert, a dense layer.
class ParityTest : public testing::TestWithParam<const char*> {
 protected:
  ParityTest() { import_hf(golden("model"), checkpoint_); }

  static std::string golden(const std::string& file) {
    return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/" + GetParam() + "/" + file;
  }
  Steps train_as_pytorch_did(Layout layout) const {
    Config config = load_config(golden("train.txtpb"),
                                {"data.train=" + golden("tokens"), "train.init_from=" + checkpoint_});
    return train(std::move(config), layout, folder_ / "run");
  }

  TemporaryFolder folder_;
  std::string checkpoint_ = folder_ / "checkpoint";
};

std::vector<float> floats_of(const TensorView& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.numel()));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

void expect_near(const TensorView& actual, const TensorView& expected, const std::string& name) {
  ASSERT_EQ(actual.shape, expected.shape) << name;
  const std::vector<float> a = floats_of(actual), b = floats_of(expected);
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], kLogits) << name << ", element " << i;
}

void expect_relative(double actual, double expected, double tolerance, const std::string& what) {
  EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected))
      << what << ": " << actual << ", PyTorch's " << expected;
}

TEST_P(ParityTest, LogitsAreThoseOfTransformers) {
  const std::string out = folder_ / "logits.safetensors";
  run_score({.checkpoint = checkpoint_, .tokens = golden("ids.txt"), .out = out});
  const SafetensorsFile actual(out), expected(golden("logits.safetensors"));
  ASSERT_EQ(actual.tensors().size(), expected.tensors().size());
  for (const auto& [name, tensor] : expected.tensors()) {
    ASSERT_TRUE(actual.tensors().contains(name)) << name;
    expect_near(actual.tensors().at(name), tensor, name);
  }
}

TEST_P(ParityTest, ExportGivesBackTheBits) {
  export_hf({.checkpoint = checkpoint_, .out = folder_ / "back"});
  const SafetensorsFile actual(folder_ / "back/model.safetensors"),
      expected(golden("model/model.safetensors"));
  ASSERT_EQ(actual.tensors().size(), expected.tensors().size());
  for (const auto& [name, tensor] : expected.tensors()) {
    ASSERT_TRUE(actual.tensors().contains(name)) << name;
    EXPECT_EQ(actual.tensors().at(name).shape, tensor.shape) << name;
    EXPECT_TRUE(actual.tensors().at(name).bytes == tensor.bytes) << name;
  }
}

class TrainingParityTest : public ParityTest {
 protected:
  void expect_pytorchs_steps(Layout layout) {
    const Steps actual = train_as_pytorch_did(layout), expected = read_steps(golden(""));
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      const std::string step = to_string(layout) + ", step " + std::to_string(i + 1);
      expect_relative(actual[i].loss, expected[i].loss, kLoss, step + ", loss");
      expect_relative(actual[i].grad_norm, expected[i].grad_norm, kGradNorm, step + ", gradient norm");
      expect_relative(actual[i].aux_loss, expected[i].aux_loss, kGradNorm, step + ", auxiliary loss");
      expect_relative(actual[i].z_loss, expected[i].z_loss, kGradNorm, step + ", z-loss");
    }
  }
};

TEST_P(TrainingParityTest, OneRankTakesPytorchsSteps) { expect_pytorchs_steps({1, 1}); }

TEST_P(TrainingParityTest, TwoRanksTakePytorchsSteps) {
  expect_pytorchs_steps({2, GetParam() == std::string("dense") ? 1 : 2});
}

constexpr const char* kGolden[] = {"dense", "moe", "grouped"};
const auto kName = [](const auto& instance) { return std::string(instance.param); };
INSTANTIATE_TEST_SUITE_P(Golden, ParityTest, testing::ValuesIn(kGolden), kName);
INSTANTIATE_TEST_SUITE_P(Golden, TrainingParityTest, testing::ValuesIn(kGolden), kName);

}  // namespace
}  // namespace switchyard::test
