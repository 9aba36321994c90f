// Text token by token: with the rows of earlier tokens kept, as without.
#include "trainer/job/generation.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/comm/make.h"
#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"

namespace switchyard::test {
namespace {

struct Model {
  ParameterStore store;
  std::unique_ptr<Transformer> transformer;

  Model(const std::string& changes, const Axis& ep) {
    const TemporaryFolder folder;
    write_training_tokens(folder / "tokens");
    const Config config = small_config(folder / "tokens", {changes});
    transformer = std::make_unique<Transformer>(store, config.model, DType::kF32, ep);
    store.materialize(Device::kCpu, 3, false);
  }

  // Of the last of `ids`, all computed anew.
  std::vector<float> logits(const std::vector<int32_t>& ids) const {
    NoGrad guard;
    ForwardContext context;
    const Tensor hidden = transformer->hidden(transformer->on_device(ids), context).value();
    return transformer->logits(hidden, std::ssize(ids) - 1, 1).to_vector<float>();
  }
};

constexpr const char* kModels[] = {
    "", "model { qk_norm: PER_HEAD }", "model { qk_norm: WHOLE qkv_bias: true }",
    "model { partial_rotary_factor: 0.5 first_dense_layers: 1 moe { shared_expert_intermediate_size: 16 } }"};

TEST(Generation, KeptRowsGiveTheSameLogits) {
  const Group self = make_self();
  for (const char* changes : kModels) {
    const Model model(changes, Axis{self, self});
    NoGrad guard;
    SequenceCache cache = model.transformer->make_cache(16, Device::kCpu);
    std::vector<int32_t> ids = {3, 60, 0, 7, 7}, fresh = ids;
    for (int step = 0; step < 11; ++step) {
      ForwardContext context;
      const DeviceBatch batch = model.transformer->on_device(fresh);
      const Tensor hidden = model.transformer->hidden(batch, context, &cache).value();
      const auto kept = model.transformer->logits(hidden, std::ssize(fresh) - 1, 1).to_vector<float>();
      const auto anew = model.logits(ids);
      for (size_t i = 0; i < anew.size(); ++i)
        ASSERT_NEAR(kept[i], anew[i], 1e-5) << changes << ", step " << step;
      fresh = {static_cast<int32_t>(step * 5 % 61)};
      ids.push_back(fresh[0]);
    }
    EXPECT_EQ(cache.tokens, 15);
  }
}

// The likeliest token each time, with the experts on two ranks.
TEST(Generation, IsGreedyAtTemperatureZeroOnAnyLayout) {
  std::vector<int32_t> expected = {5, 2};
  const Group self = make_self();
  const Model alone("", Axis{self, self});
  for (int i = 0; i < 12; ++i) {
    const auto logits = alone.logits(expected);
    expected.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  run_ranks(2, [&](const Group& group) {
    const Model model("", Axis{group, group});
    std::vector<int32_t> ids = {5, 2};
    generate(*model.transformer, ids, std::nullopt, {.max_tokens = 12, .temperature = 0}, group,
             [&](int32_t id) { ids.push_back(id); });
    EXPECT_EQ(ids, expected);
  });
}

TEST(Generation, EndsWhenItIsInterrupted) {
  const Group self = make_self();
  const Model model("", Axis{self, self});
  int made = 0;
  generate(
      *model.transformer, {1}, std::nullopt, {.max_tokens = 50}, self, [&](int32_t) { ++made; },
      [&] { return made == 3; });
  EXPECT_EQ(made, 3);
}

}  // namespace
}  // namespace switchyard::test
