#include "trainer/config.h"

#include <gtest/gtest.h>

#include "tests/trainer/config_support.h"

namespace switchyard {
namespace {

TEST(Config, BlendsAreListsOfDataSets) {
  const Config config = parse_after_model("data { blend { path: 'a' weight: 0.7 } blend { path: 'b' } }");
  ASSERT_EQ(config.data.sets().size(), 2U);
  EXPECT_EQ(config.data.sets()[0].path, "a");
  EXPECT_EQ(config.data.sets()[0].weight, 0.7);
  EXPECT_EQ(config.data.sets()[1].weight, 1);
  const Config again = parse_config(resolved_text(config), "r.txtpb");
  EXPECT_EQ(again.data.sets()[1].path, "b");
}

TEST(Config, BlendsCanBeSetAndAppendedTo) {
  const Config config = parse_after_model(
      "data { train: 'x' }", {"data.train=", "data.blend=[{path: 'a, b', weight: 2}, {path: 'c'}]",
                              "data.blend+={path: 'd' weight: 3}"});
  ASSERT_EQ(config.data.sets().size(), 3U);
  EXPECT_EQ(config.data.sets()[0].path, "a, b");
  EXPECT_EQ(config.data.sets()[2].weight, 3);
}

TEST(Config, LeftOutFieldsHaveTheirDefaults) {
  const Config config = parse(kModel);
  EXPECT_EQ(config.model.num_key_value_heads, 4);
  EXPECT_EQ(config.model.head_dim, 16);
  EXPECT_EQ(config.model.vocab_size, 0);
  EXPECT_EQ(config.precision, Precision::kFP32);
  EXPECT_EQ(config.schedule.steps, config.train.steps);
  EXPECT_TRUE(config.data.shuffle);
  EXPECT_TRUE(config.model.moe->balance.empty());
}

// From how many pairs on experts are copied: more of small ones.
TEST(Config, ShadowPairsFollowTheExperts) {
  const auto pairs = [](const std::string& more, const std::vector<std::string>& sets) {
    const Config config = parse_after_model(more, sets);
    EXPECT_EQ(parse_config(resolved_text(config), "r.txtpb").parallel.shadow_pairs,
              config.parallel.shadow_pairs);
    return config.parallel.shadow_pairs;
  };
  const std::vector<std::string> large = {"model.hidden_size=1024", "model.moe.moe_intermediate_size=512"},
                                 small = {"model.hidden_size=64", "model.moe.moe_intermediate_size=100"};
  EXPECT_EQ(pairs("", large), 100);
  EXPECT_EQ(pairs("", small), 1042);  // 20,000,000 / (3 * 64 * 100), rounded up
  EXPECT_EQ(pairs("device: CUDA ", large), 0);
  EXPECT_EQ(pairs("parallel { shadow_pairs: 7 }", large), 7);
  EXPECT_EQ(pairs("device: CUDA parallel { shadow_pairs: 7 }", large), 7);
}

TEST(Config, EveryGivenFieldArrives) {
  const Config config = parse_after_model(
      "name: \"a b\" seed: 18446744073709551615 precision: BF16 device: CUDA threads: 3\n"
      "parallel { expert: 2 timeout_seconds: 7.5 }\n"
      "train { steps: 9 global_batch_size: 8 micro_batch_size: 2 sequence_length: 5 }\n"
      "optimizer { lr: 1e-3 beta1: 0.5 beta2: 0.6 eps: 1e-6 weight_decay: 0 clip_norm: 0 moments: BF16 }\n"
      "schedule { kind: WSD warmup_steps: 20 min_lr_ratio: 0.25 decay_fraction: 1 }\n"
      "data { train: 'x/y' validation: \"z\" shuffle: false } eval { every_steps: 3 batches: 0 }\n"
      "checkpoint { every_steps: 4 keep_last: 2 } log { every_steps: 6 }\n"
      "sample { every_steps: 1 prompts: ['a', 'b'] prompts: 'c' max_tokens: 2 temperature: 0 }\n");
  EXPECT_EQ(config.name, "a b");
  EXPECT_EQ(config.seed, UINT64_MAX);
  EXPECT_EQ(config.precision, Precision::kBF16);
  EXPECT_EQ(config.device, Device::kCuda);
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(config.parallel.timeout_seconds, 7.5);
  EXPECT_EQ(config.optimizer.eps, 1e-6);
  EXPECT_EQ(config.optimizer.moments, DType::kBF16);
  EXPECT_EQ(config.schedule.kind, ScheduleKind::kWsd);
  EXPECT_EQ(config.schedule.warmup_steps, 20);
  EXPECT_EQ(config.schedule.steps, 9);
  EXPECT_EQ(config.data.train, "x/y");
  EXPECT_FALSE(config.data.shuffle);
  EXPECT_EQ(config.eval.batches, 0);
  EXPECT_EQ(config.checkpoint.keep_last, 2);
  EXPECT_EQ(config.sample.prompts, (Texts{"a", "b", "c"}));
}

TEST(Config, QkNormTakesNamesAndBooleans) {
  const auto qk_norm = [](const std::string& value) {
    return parse_after_model("", {"model.qk_norm=" + value}).model.qk_norm;
  };
  EXPECT_EQ(qk_norm("true"), QkNorm::kPerHead);
  EXPECT_EQ(qk_norm("PER_HEAD"), QkNorm::kPerHead);
  EXPECT_EQ(qk_norm("false"), QkNorm::kNone);
  EXPECT_EQ(qk_norm("NONE"), QkNorm::kNone);
  EXPECT_EQ(qk_norm("WHOLE"), QkNorm::kWhole);
}

TEST(Config, EnumNumbersAreThoseOfTheCppEnums) {
  const auto balance = [](const std::string& name) {
    return parse_after_model("", {"model.moe.balance=" + name}).model.moe->balance;
  };
  EXPECT_EQ(balance("AUX"), std::vector{Balance::kAux});
  EXPECT_EQ(balance("SEQUENCE"), std::vector{Balance::kSequence});
  EXPECT_EQ(balance("KL"), std::vector{Balance::kKl});
  EXPECT_EQ(balance("CV"), std::vector{Balance::kCv});
  EXPECT_EQ(balance("ENTROPY"), std::vector{Balance::kEntropy});
  EXPECT_EQ(balance("GLOBAL"), std::vector{Balance::kGlobal});
  EXPECT_TRUE(balance("NONE").empty());
  const auto kind = [](const std::string& name) {
    return parse_after_model("", {"schedule.kind=" + name}).schedule.kind;
  };
  EXPECT_EQ(kind("CONSTANT"), ScheduleKind::kConstant);
  EXPECT_EQ(kind("COSINE"), ScheduleKind::kCosine);
  EXPECT_EQ(kind("LINEAR"), ScheduleKind::kLinear);
  const Config config =
      parse_after_model("", {"model.moe.score_function=SIGMOID", "model.moe.token_drop_policy=POSITION"});
  EXPECT_EQ(config.model.moe->score_function, kernels::ScoreFunction::kSigmoid);
  EXPECT_EQ(config.model.moe->token_drop_policy, kernels::DropPolicy::kPosition);
}

TEST(Config, MomentsAreFloat32UnlessAsked) {
  const auto moments = [](const std::vector<std::string>& sets) {
    return parse_after_model("", sets).optimizer.moments;
  };
  EXPECT_EQ(moments({}), DType::kF32);
  EXPECT_EQ(moments({"optimizer.moments=FP32", "optimizer.beta2=0.999"}), DType::kF32);
  EXPECT_EQ(moments({"optimizer.moments=BF16"}), DType::kBF16);
  EXPECT_EQ(moments({"optimizer.moments=BF16", "optimizer.beta1=0", "optimizer.beta2=0.9921875"}),
            DType::kBF16);
}

TEST(Config, AuxLossWithoutABalanceTypeMeansAux) {
  EXPECT_EQ(parse_after_model("", {"model.moe.aux_loss_coeff=0.01"}).model.moe->balance,
            std::vector{Balance::kAux});
  EXPECT_TRUE(parse_after_model("", {"model.moe.aux_loss_coeff=0.01", "model.moe.balance=NONE"})
                  .model.moe->balance.empty());
}

TEST(Config, TopOneDoesNotNormaliseUnlessAsked) {
  EXPECT_FALSE(parse_after_model("", {"model.moe.top_k=1"}).model.moe->normalize_topk);
  EXPECT_TRUE(parse_after_model("").model.moe->normalize_topk);
}

TEST(Config, WindowsLineEndsAndAByteOrderMarkAreFine) {
  EXPECT_EQ(parse("\xef\xbb\xbf# comment\r\nname: \"x\"\r\n" + std::string(kModel)).name, "x");
}

TEST(Config, KnowsWhatWasGiven) {
  const Config config =
      parse_after_model("seed: 1", {"train.steps=4"}, {"model { moe { z_loss_coeff: 0 } }"});
  for (const char* path : {"seed", "train.steps", "train", "model.moe.z_loss_coeff", "model.moe.top_k"}) {
    EXPECT_TRUE(config.is_given(path)) << path;
  }
  for (const char* path : {"name", "train.init_from", "model.head_dim", "data", "data.train", "nonsense"}) {
    EXPECT_FALSE(config.is_given(path)) << path;
  }
}

TEST(Overrides, StringsAndEnumNamesAreBare) {
  const Config config = parse_after_model("", {"name=my run", "data.train=a=b,c", "precision=BF16",
                                               "data.validation=\"q\\\"x\"", "train.init_from="});
  EXPECT_EQ(config.name, "my run");
  EXPECT_EQ(config.data.train, "a=b,c");
  EXPECT_EQ(config.precision, Precision::kBF16);
  EXPECT_EQ(config.data.validation, "q\"x");
}

TEST(Overrides, TheLastOneWins) {
  EXPECT_EQ(
      parse_after_model("train { steps: 1 }", {"train.steps=3", "train.steps=4"}, {"train { steps: 2 }"})
          .train.steps,
      4);
}

TEST(Overrides, ListsAreReplacedOrAppendedTo) {
  const std::string base = "sample { prompts: 'a' prompts: 'b' }";
  const auto prompts = [&](const Texts& sets) { return parse_after_model(base, sets).sample.prompts; };
  EXPECT_EQ(prompts({"sample.prompts=[c, 'd, e']"}), (Texts{"c", "d, e"}));
  EXPECT_EQ(prompts({"sample.prompts=c"}), (Texts{"c"}));
  EXPECT_EQ(prompts({"sample.prompts+=c", "sample.prompts+=[d]"}), (Texts{"a", "b", "c", "d"}));
  EXPECT_EQ(prompts({"sample.prompts=[]"}), Texts{});
}

TEST(Overrides, AMessageIsReplacedAsAWhole) {
  const Config config = parse_after_model("optimizer { lr: 1 beta1: 0.5 }", {"optimizer={lr: 2}"});
  EXPECT_EQ(config.optimizer.lr, 2);
  EXPECT_EQ(config.optimizer.beta1, AdamWOptions{}.beta1);
}

TEST(Overrides, MergeGoesMessageByMessageAndAppendsToLists) {
  const Config config = parse_after_model("optimizer { lr: 1 beta1: 0.5 } sample { prompts: 'a' }", {},
                                          {"optimizer { lr: 2 }", "sample { prompts: 'b' }"});
  EXPECT_EQ(config.optimizer.lr, 2);
  EXPECT_EQ(config.optimizer.beta1, 0.5);
  EXPECT_EQ(config.sample.prompts, (Texts{"a", "b"}));
}

TEST(Overrides, ErrorsNameTheField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"train.step=5", "--set train.step=5: train has no field \"step\"; did you mean \"steps\"?"},
      {"top_k=5", "did you mean \"model.moe.top_k\"?"},
      {"train.steps=abc", "train.steps"},
      {"train.steps=", "train.steps"},
      {"train.steps=0", "--set train.steps=0: train.steps is 0; it must be at least 1"},
      {"train.steps=010", "octal"},
      {"train.steps=5 } seed: 3", "train.steps"},
      {"train.steps", "expected path=value"},
      {"=5", "expected path=value"},
      {"train.steps+=5", "is no list"},
      {"train.steps.x=5", "steps is a value"},
      {"train=5", "train"},
      {"schedule.kind=COSIN", "did you mean \"COSINE\"?"},
      {"schedule.kind=9", "schedule.kind is 9, which is no value of it"},
      {"optimizer.lr=1e999", "optimizer.lr is inf"},
      {"name=a/b", "cannot name the run's directory"},
      {"model.dense_layers=[1, x]", "Expected integer"},
      {"model..moe=3", "model has no field \"\""},
  };
  for (const auto& [set, message] : cases) expect_contains(config_error(kModel, {set}), message);
}

TEST(Overrides, MergeErrorsCarryTheirPosition) {
  EXPECT_EQ(first_line(config_error(kModel, {}, {"train { steps: 0 }"})),
            "--merge:1:16: train.steps is 0; it must be at least 1");
}

}  // namespace
}  // namespace switchyard
