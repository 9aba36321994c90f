#include "trainer/config.h"

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "configs/schema/experiment.pb.h"

namespace switchyard {
namespace {

const char* const kModel =
    "model { hidden_size: 64 num_layers: 2 num_attention_heads: 4 "
    "moe { num_experts: 8 top_k: 2 moe_intermediate_size: 32 } }\n";

using Texts = std::vector<std::string>;

Config parse(const std::string& text, const Texts& sets = {}, const Texts& merges = {}) {
  return parse_config(text, "f.txtpb", sets, merges);
}

Config parse_after_model(const std::string& text, const Texts& sets = {}, const Texts& merges = {}) {
  return parse(kModel + text, sets, merges);
}

// The message of the error that `body` must throw, with its exit code checked.
template <class Body>
std::string error_of(const Body& body, Fault fault = Fault::kUsage) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), fault) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

std::string config_error(const std::string& text, const Texts& sets = {}, const Texts& merges = {}) {
  return error_of([&] { parse(text, sets, merges); });
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in:\n" << text;
}

// ---- values

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

TEST(Config, EveryGivenFieldArrives) {
  const Config config = parse_after_model(
      "name: \"a b\" seed: 18446744073709551615 precision: BF16 device: CUDA threads: 3\n"
      "parallel { expert: 2 timeout_seconds: 7.5 }\n"
      "train { steps: 9 global_batch_size: 8 micro_batch_size: 2 sequence_length: 5 }\n"
      "optimizer { lr: 1e-3 beta1: 0.5 beta2: 0.6 eps: 1e-6 weight_decay: 0 clip_norm: 0 }\n"
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

// ---- positions

struct BadConfig {
  std::string text;      // without a model, so that only the value is at fault
  std::string position;  // line:col
  std::string message;   // part of it
};

const std::vector<BadConfig> kBad = {
    {"sed: 1", "1:1", "did you mean \"seed\"?"},
    {"name: \"x\"\nmodel {\n  hiden_size: 4\n}", "3:3", "did you mean \"hidden_size\"?"},
    {"model { top_k: 2 }", "1:9", "did you mean \"model.moe.top_k\"?"},
    {"optimizer { zzz: 3e-4 }", "1:13", "optimizer has no field \"zzz\"; its fields: lr, beta1"},
    {"model{moe{num_exprts:4}}", "1:11", "model.moe has no field"},
    {"train { steps: 2.5 }", "1:16", "Expected integer"},
    {"train { steps: \"5\" }", "1:16", "Expected integer"},
    {"train { steps: inf }", "1:16", "Expected integer"},
    {"train { steps: 99999999999999999999 }", "1:16", "out of range"},
    {"train { steps: 010 }", "1:16", "octal"},
    {"train { steps: 09 }", "1:16", "octal"},
    {"train { steps: 0 }", "1:16", "train.steps is 0; it must be at least 1"},
    {"train { steps: -3 }", "1:16", "train.steps is -3"},
    {"train { steps: 9000000000000000000 }", "1:16", "absurdly large"},
    {"seed: -1", "1:7", "Expected integer"},
    {"name: 5", "1:7", "Expected string"},
    {"name: \"a/b\"", "1:7", "cannot name the run's directory"},
    {"name: \"..\"", "1:7", "cannot name the run's directory"},
    {"name: \"\"", "1:7", "name is empty"},
    {"name: \"a\\000b\"", "1:7", "NUL"},
    {"name: \"a\\nb\"", "1:7", "control character"},
    {"data { train: \"\\377\" }", "1:15", "not UTF-8"},
    {"precision: FP23", "1:12", "did you mean \"FP32\"?"},
    {"precision: 7", "1:12", "no value of it (FP32, BF16)"},
    {"schedule { kind: COSIN }", "1:18", "did you mean \"COSINE\"?"},
    {"schedule { kind: 4 }", "1:18", "no value of it"},
    {"model { qk_norm: maybe }", "1:18", "PER_HEAD"},
    {"model { tie_embeddings: maybe }", "1:25", "no value of tie_embeddings (true, false)"},
    {"model { tie_embeddings: 2 }", "1:25", "out of range"},
    {"optimizer { lr: nan }", "1:17", "not a finite number"},
    {"optimizer { lr: inf }", "1:17", "not a finite number"},
    {"optimizer { lr: -1e-3 }", "1:17", "optimizer.lr is -0.001"},
    {"optimizer { lr: 1e400 }", "1:17", "not a finite number"},
    {"optimizer { lr: 3e-4 lr: 1 }", "1:22", "\"lr\" is given twice"},
    {"train { steps: 1 }\ntrain { steps: 2 }", "2:1", "\"train\" is given twice"},
    {"optimizer { beta1: 1 }", "1:20", "at least 0 and below 1"},
    {"optimizer { beta2: 1.5 }", "1:20", "below 1"},
    {"optimizer { eps: 0 }", "1:18", "above 0"},
    {"schedule { min_lr_ratio: 1.5 }", "1:26", "at most 1"},
    {"schedule { decay_fraction: 0 }", "1:28", "above 0"},
    {"parallel { expert: 0 }", "1:20", "parallel.expert is 0"},
    {"parallel { timeout_seconds: 0 }", "1:29", "above 0"},
    {"model { hidden_size: 1048577 }", "1:22", "at most 1048576"},
    {"model { head_dim: 0 }", "1:19", "model.head_dim is 0"},
    {"model { dense_layers: [0, 1,\n 1] }", "2:2", "same value twice"},
    {"model { dense_layers: 0 dense_layers: [2, -1] }", "1:43", "model.dense_layers is -1"},
    {"model { moe { balance: [AUX, 9] } }", "1:30", "no value of it"},
    {"model { moe { balance: [NONE, AUX] } }", "1:25", "NONE must stand alone"},
    {"model { moe { jitter_eps: 1 } }", "1:27", "below 1"},
    {"model { moe { capacity_factor: -1 } }", "1:32", "at least 0"},
    {"model {", "1:8", "the end of the text"},
    {"model { } }", "1:11", ""},
    {"train steps: 3", "1:7", ""},
    {"train { steps 3 }", "1:15", ""},
    {"seed: 1\n\tsed: 2", "2:2", "no field \"sed\""},
    {"train {\tsteps:\t0 }", "1:16", "train.steps is 0"},
    {"# \xc3\xa4\nname: \"\xc3\xa4\" sed: 2", "2:11", "no field \"sed\""},
    {"name: \"\xff\"", "1:8", "not UTF-8"},
    {std::string("seed: 1\n\0", 9), "2:1", "NUL"},
    {"seed: 1 $", "1:9", ""},
    {"name: \"x", "1:9", "Unexpected end of string"},
};

TEST(ConfigErrors, CarryFileLineAndColumn) {
  for (const BadConfig& bad : kBad) {
    const std::string error = config_error(bad.text);
    EXPECT_EQ(error.rfind("f.txtpb:" + bad.position + ": ", 0), 0u)
        << "for " << bad.text << " expected " << bad.position << ", got\n"
        << error;
    expect_contains(first_line(error), bad.message);
  }
}

TEST(ConfigErrors, ShowTheLineAndACaretUnderTheFault) {
  EXPECT_EQ(config_error("seed: 1\nmodel { hiden_size: 4 }"),
            "f.txtpb:2:9: model has no field \"hiden_size\"; did you mean \"hidden_size\"?\n"
            "  model { hiden_size: 4 }\n"
            "          ^");
}

TEST(ConfigErrors, TheCaretFollowsTabsAndWideCharacters) {
  expect_contains(config_error("\tname:\t\"\xc3\xa4\" sed: 2"),
                  "\n  \tname:\t\"\xc3\xa4\" sed: 2\n  \t     \t    ^");
}

TEST(ConfigErrors, LongLinesAreCut) {
  const std::string error = config_error(std::string(5000, ' ') + "sed: 1" + std::string(5000, ' '));
  EXPECT_EQ(error.rfind("f.txtpb:1:5001: ", 0), 0u);
  EXPECT_LT(error.size(), 500u);
}

TEST(ConfigErrors, DeepNestingAndGiantTextsAreRefused) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "model {";
  expect_contains(config_error(deep), "f.txtpb:1:8: ");
  expect_contains(config_error(std::string(2 << 20, ' ')), "too many");
}

// ---- between fields

TEST(ConfigErrors, BetweenFieldsNameTheFields) {
  const std::vector<std::pair<Texts, std::string>> cases = {
      {{"model.moe.top_k=9"}, "model.moe.top_k (9) exceeds model.moe.num_experts (8)"},
      {{"model.num_key_value_heads=3"},
       "model.num_key_value_heads (3) must divide model.num_attention_heads (4)"},
      {{"model.num_attention_heads=3"}, "model.num_attention_heads (3) must divide model.hidden_size (64)"},
      {{"model.head_dim=15"}, "model.head_dim is 15"},
      {{"model.partial_rotary_factor=0.1"}, "model.partial_rotary_factor (0.1)"},
      {{"model.moe.top_k=1", "model.moe.pre_softmax=false"}, "model.moe.pre_softmax is false"},
      {{"model.moe.top_k=1", "model.moe.normalize_topk=true"}, "model.moe.normalize_topk is true"},
      {{"model.moe.num_groups=3"}, "model.moe.num_groups (3) must divide"},
      {{"model.moe.num_groups=4", "model.moe.group_topk=5"}, "model.moe.group_topk (5) exceeds"},
      {{"model.moe.num_groups=8", "model.moe.group_topk=1"}, "model.moe.top_k (2) exceeds the 1 experts"},
      {{"model.moe.shared_expert_gate=true"}, "model.moe.shared_expert_intermediate_size"},
      {{"model.moe.bias_update_rate=0.1", "model.moe.expert_bias=false"}, "needs model.moe.expert_bias"},
      {{"model.first_dense_layers=1"}, "model.intermediate_size is missing; 1 of 2"},
      {{"model.first_dense_layers=2", "model.intermediate_size=8"}, "every layer is dense"},
      {{"model.moe.dense_weight=0.5"}, "model.intermediate_size is missing"},
      {{"model.dense_layers=2"}, "model.dense_layers names layer 2"},
      {{"train.micro_batch_size=5"},
       "train.global_batch_size (32) must be a multiple of train.micro_batch_size (5)"},
      {{"parallel.expert=9"}, "parallel.expert (9) exceeds model.moe.num_experts (8)"},
      {{"sample.every_steps=1"}, "needs sample.prompts"},
      {{"model.vocab_size=67108864", "model.hidden_size=1048576", "model.num_layers=16384"}, "absurdly many"},
      {{"train.sequence_length=1000000000000"}, "train.sequence_length (1000000000000) is absurdly large"},
      {{"train.steps=1000000000000000", "train.sequence_length=1000000"}, "are absurdly many"},
  };
  for (const auto& [sets, message] : cases) expect_contains(config_error(kModel, sets), message);
}

TEST(ConfigErrors, BetweenFieldsOfTheFileAlsoCarryAPosition) {
  EXPECT_EQ(first_line(config_error("model { hidden_size: 64 num_layers: 2 num_attention_heads: 4\n"
                                    "moe { num_experts: 8 top_k: 9 moe_intermediate_size: 32 } }")),
            "f.txtpb:2:29: model.moe.top_k (9) exceeds model.moe.num_experts (8)");
}

TEST(ConfigErrors, MissingFieldsAreNamed) {
  EXPECT_EQ(config_error(""), "f.txtpb: model.hidden_size is missing");
  EXPECT_EQ(config_error("model { hidden_size: 8 num_layers: 1 num_attention_heads: 2 moe { top_k: 1 } }"),
            "f.txtpb: model.moe.num_experts is missing");
}

TEST(ConfigErrors, AMissingFileIsAUsageError) {
  expect_contains(error_of([] { load_config("/nowhere/c.txtpb"); }),
                  "/nowhere/c.txtpb: No such file or directory");
  expect_contains(error_of([] { load_config("/"); }), "a directory");
}

TEST(CheckWorld, NamesTheFieldsAndNumbers) {
  const Config config =
      parse_after_model("parallel { expert: 2 } train { global_batch_size: 8 micro_batch_size: 2 }");
  EXPECT_NO_THROW(check_world(config, 2));
  EXPECT_NO_THROW(check_world(config, 4));
  EXPECT_EQ(error_of([&] { check_world(config, 3); }), "parallel.expert (2) must divide the world size (3)");
  expect_contains(error_of([&] { check_world(config, 8); }),
                  "train.global_batch_size (8) must be a multiple of");
}

TEST(CheckData, TrainingAndEvaluationNeedData) {
  expect_contains(error_of([] { check_data(parse(kModel)); }), "data.train is missing");
  expect_contains(
      error_of([] { check_data(parse_after_model("data { train: 'x' } eval { every_steps: 1 }")); }),
      "data.validation");
  EXPECT_NO_THROW(check_data(parse_after_model("data { train: 'x' }")));
}

// ---- overrides

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

// ---- text and back

TEST(ResolvedText, ParsesToTheSameConfig) {
  const Config config = parse_after_model(
      "name: 'n\xc3\xa4me' seed: 7 optimizer { lr: 0.1 } parallel { expert: 4 } sample { prompts: ['a\\n\"', "
      "''] every_steps: 1 }",
      {"model.moe.aux_loss_coeff=0.3", "model.moe.balance=[KL, CV]", "model.dense_layers=[1]",
       "model.intermediate_size=8", "optimizer.lr=0.1234567890123"});
  const std::string text = resolved_text(config);
  const Config again = parse(text);
  EXPECT_EQ(resolved_text(again), text);
  EXPECT_EQ(again.sample.prompts, config.sample.prompts);
  EXPECT_EQ(again.optimizer.lr, 0.1234567890123);
  EXPECT_TRUE(model_differences(config.model, again.model).empty());
}

TEST(ResolvedText, KeepsAnExplicitlyEmptyBalance) {
  const Config config = parse_after_model("", {"model.moe.aux_loss_coeff=1", "model.moe.balance=NONE"});
  EXPECT_TRUE(parse(resolved_text(config)).model.moe->balance.empty());
}

TEST(ResolvedText, NamesEveryFieldOfTheSchema) {
  const std::string text = resolved_text(
      parse_after_model("sample { prompts: 'a' }", {"model.dense_layers=1", "model.intermediate_size=8"}));
  const auto* file = config::Experiment::descriptor()->file();
  for (int i = 0; i < file->message_type_count(); ++i) {
    for (int j = 0; j < file->message_type(i)->field_count(); ++j) {
      expect_contains(text, file->message_type(i)->field(j)->name());
    }
  }
}

TEST(ModelText, RoundTrips) {
  for (const Texts& sets :
       {Texts{}, Texts{"model.moe.score_function=SIGMOID", "model.qk_norm=WHOLE", "model.rope_theta=1e6"}}) {
    const ModelOptions model = parse(kModel, sets).model;
    EXPECT_TRUE(model_differences(model, model_from_text(model_to_text(model), "m")).empty());
  }
}

TEST(ModelText, ADenseModelStaysDense) {
  const ModelOptions model =
      parse("model { hidden_size: 8 num_layers: 1 num_attention_heads: 2 intermediate_size: 8 }").model;
  EXPECT_FALSE(model_from_text(model_to_text(model), "m").moe.has_value());
}

TEST(ModelText, DamageIsADataError) {
  const std::string good = model_to_text(parse(kModel).model);
  const auto error = [](const std::string& text) {
    return error_of([&] { model_from_text(text, "ckpt/model"); }, Fault::kData);
  };
  expect_contains(error(good + "extra: 1"), "ckpt/model:");
  expect_contains(error(good + "{"), "ckpt/model:");
  expect_contains(error("hidden_size: 0"), "ckpt/model:1:14: model.hidden_size is 0");
  expect_contains(error(""), "ckpt/model: model.hidden_size is missing");
}

TEST(ModelDifferences, NameFieldsAndValues) {
  const ModelOptions a = parse(kModel).model,
                     b = parse(kModel, {"model.moe.top_k=3", "model.hidden_size=128", "model.head_dim=16"})
                             .model;
  const auto differences = model_differences(a, b);
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0].field, "model.hidden_size");
  EXPECT_EQ(differences[0].first, "64");
  EXPECT_EQ(differences[0].second, "128");
  EXPECT_TRUE(differences[0].fixes_shape);
  EXPECT_EQ(differences[1].field, "model.moe.top_k");
  EXPECT_FALSE(differences[1].fixes_shape);
}

// ---- train.init_from

TEST(AdoptModel, LeftOutFieldsComeFromTheCheckpoint) {
  ModelOptions checkpoint =
      parse(kModel, {"model.vocab_size=100", "model.moe.z_loss_coeff=0.5", "model.moe.aux_loss_coeff=0.1"})
          .model;
  Config config = parse("train { init_from: 'x' } model { moe { aux_loss_coeff: 0 } }");
  adopt_model(config, checkpoint);
  EXPECT_EQ(config.model.moe->aux_loss_coeff, 0);
  checkpoint.moe->aux_loss_coeff = 0;
  EXPECT_TRUE(model_differences(config.model, checkpoint).empty());
}

TEST(AdoptModel, WithoutAModelTheCheckpointsIsTaken) {
  const ModelOptions checkpoint = parse(kModel, {"model.vocab_size=100"}).model;
  Config config = parse("train { init_from: 'x' } parallel { expert: 2 }");
  adopt_model(config, checkpoint);
  EXPECT_TRUE(model_differences(config.model, checkpoint).empty());
}

TEST(AdoptModel, AFieldThatFixesAShapeMustAgree) {
  const ModelOptions checkpoint = parse(kModel, {"model.vocab_size=100"}).model;
  Config config = parse("train { init_from: 'x' } model { vocab_size: 101 }");
  expect_contains(error_of([&] { adopt_model(config, checkpoint); }),
                  "model.vocab_size is 101, but 100 in the checkpoint");
  Config same = parse("train { init_from: 'x' } model { vocab_size: 100 }");
  EXPECT_NO_THROW(adopt_model(same, checkpoint));
}

TEST(AdoptModel, ValuesAreStillCheckedBeforeTheCheckpointIsRead) {
  expect_contains(config_error("train { init_from: 'x' } model { vocab_size: -1 }"), "f.txtpb:1:46: ");
}

TEST(AdoptModel, FieldsAreCheckedAgainstTheCheckpoint) {
  Config config = parse("train { init_from: 'x' } parallel { expert: 16 }");
  expect_contains(error_of([&] { adopt_model(config, parse(kModel).model); }),
                  "parallel.expert (16) exceeds");
}

// ---- documentation

// The repository's root, found from this file's path as the compiler saw it.
std::filesystem::path root() {
  return std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ConfigDocs, DescribeEveryFieldAndEnumValue) {
  const std::string text = contents(root() / "docs/config.md");
  const auto* file = config::Experiment::descriptor()->file();
  for (int i = 0; i < file->message_type_count(); ++i) {
    for (int j = 0; j < file->message_type(i)->field_count(); ++j) {
      const auto* field = file->message_type(i)->field(j);
      expect_contains(text, "`" + field->name() + "`");
      if (!field->enum_type()) continue;
      for (int k = 0; k < field->enum_type()->value_count(); ++k)
        expect_contains(text, field->enum_type()->value(k)->name());
    }
  }
}

TEST(ShippedConfigs, AreValid) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root() / "configs")) {
    if (entry.path().extension() != ".txtpb") continue;
    const Config config = load_config(entry.path());
    EXPECT_NO_THROW(check_data(config)) << entry.path();
    EXPECT_NO_THROW(check_world(config, config.parallel.expert)) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 2);
}

}  // namespace
}  // namespace switchyard
