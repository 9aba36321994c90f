// A dense model that is imported as a mixture of its copies computes what it did.
#include "trainer/export/upcycle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/trainer/temporary_folder.h"
#include "trainer/checkpoint/store.h"
#include "trainer/commands/commands.h"
#include "trainer/export/import_hf.h"
#include "trainer/job/loaded_model.h"

namespace switchyard {
namespace {

const std::string kGolden = SWITCHYARD_SOURCE_DIR "/tests/golden/";

TEST(Upcycle, FirstLogitsAreTheDenseModels) {
  const TemporaryFolder folder;
  const std::string mixture = folder / "mixture", out = folder / "logits.safetensors";
  import_hf(kGolden + "dense/model", mixture, UpcycleOptions{.num_experts = 5, .top_k = 3});
  run_score({.checkpoint = mixture, .tokens = kGolden + "dense/ids.txt", .out = out});
  const SafetensorsFile actual(out), expected(kGolden + "dense/logits.safetensors");
  ASSERT_EQ(actual.tensors().size(), expected.tensors().size());
  for (const auto& [name, tensor] : expected.tensors()) {
    ASSERT_EQ(actual.tensors().at(name).shape, tensor.shape);
    for (size_t at = 0; at < tensor.bytes.size(); at += sizeof(float)) {
      float a = 0, e = 0;
      std::memcpy(&a, actual.tensors().at(name).bytes.data() + at, sizeof(float));
      std::memcpy(&e, tensor.bytes.data() + at, sizeof(float));
      ASSERT_NEAR(a, e, 1e-4) << name << ", byte " << at;
    }
  }
}

// The same files, whether the dense model comes from Hugging Face or from a checkpoint.
TEST(Upcycle, ACheckpointBecomesTheSameMixture) {
  const TemporaryFolder folder;
  const ImportArgs dense{.from = kGolden + "dense/model", .to = folder / "dense", .upcycle = ""};
  run_import(dense);
  run_import({.from = dense.to, .to = folder / "mixture", .upcycle = "num_experts=5,top_k=3"});
  import_hf(dense.from, folder / "expected", UpcycleOptions{.num_experts = 5, .top_k = 3});
  const CheckpointReader actual(folder / "mixture"), expected(folder / "expected");
  EXPECT_EQ(actual.manifest().files, expected.manifest().files);
}

TEST(Upcycle, ACheckpointIsNotImportedOtherwise) {
  const TemporaryFolder folder;
  run_import({.from = kGolden + "dense/model", .to = folder / "dense", .upcycle = ""});
  const auto again = [&](const std::string& upcycle) {
    run_import({.from = folder / "dense", .to = folder / "again", .upcycle = upcycle});
  };
  EXPECT_EQ(fault_of([&] { again(""); }, "is a checkpoint already"), Fault::kUsage);
  run_import({.from = kGolden + "moe/model", .to = folder / "moe", .upcycle = ""});
  EXPECT_EQ(
      fault_of(
          [&] {
            run_import({.from = folder / "moe", .to = folder / "again", .upcycle = "num_experts=2,top_k=2"});
          },
          "has experts"),
      Fault::kUsage);
  EXPECT_EQ(folder.entries(), 2u);
}

TEST(Upcycle, RoutersDifferFromLayerToLayerAndRowToRow) {
  const TemporaryFolder folder;
  import_hf(kGolden + "dense/model", folder / "mixture", UpcycleOptions{.num_experts = 5, .top_k = 3});
  const LoadedModel loaded = load_model(folder / "mixture");
  std::vector<float> rows;  // the first component of every router's rows
  for (const Parameter& p : loaded.store->parameters()) {
    if (!is_router(p.spec.pieces.front().name)) continue;
    const auto values = read_piece(loaded.store->segments()[p.segment].value, p, p.spec.pieces.front());
    for (int64_t e = 0; e < 5; ++e)
      rows.push_back(values[static_cast<size_t>(e * loaded.options.hidden_size)]);
  }
  ASSERT_EQ(rows.size(), 15u);
  std::sort(rows.begin(), rows.end());
  EXPECT_EQ(std::adjacent_find(rows.begin(), rows.end()), rows.end());
}

TEST(Upcycle, RefusesAModelWithExperts) {
  const TemporaryFolder folder;
  const UpcycleOptions upcycle{.num_experts = 4, .top_k = 2};
  EXPECT_EQ(fault_of([&] { import_hf(kGolden + "moe/model", folder / "mixture", upcycle); }, "has experts"),
            Fault::kUsage);
  EXPECT_EQ(folder.entries(), 0u);
}

TEST(Upcycle, ReadsItsOption) {
  const UpcycleOptions options = parse_upcycle("top_k=2,num_experts=8");
  EXPECT_EQ(options.num_experts, 8);
  EXPECT_EQ(options.top_k, 2);
  for (const char* wrong :
       {"", "8", "num_experts=8", "num_experts=2,top_k=3", "num_experts=8,top_k=2x",
        "num_experts=8,top_k=2,top_k=2", "num_experts=8,top_k=-1", "num_experts=8,width=2",
        "num_experts=8,top_k=2,", "num_experts=1000000,top_k=2"}) {
    EXPECT_EQ(fault_of([&] { parse_upcycle(wrong); }, "--upcycle"), Fault::kUsage) << wrong;
  }
}

}  // namespace
}  // namespace switchyard
