#include <gtest/gtest.h>

#include "tests/trainer/config_support.h"

namespace switchyard {
namespace {

struct BadConfig {
  std::string text;      // without a model, so that only the value is at fault
  std::string position;  // line:col
  std::string message;   // part of it
};

const std::vector<BadConfig> kBad = {
    {"sed: 1", "1:1", "did you mean \"seed\"?"},
    {"name: \"x\"\nmodel {\n  hiden_size: 4\n}", "3:3", "did you mean \"hidden_size\"?"},
    {"model { top_k: 2 }", "1:9", "did you mean \"model.moe.top_k\"?"},
    {"model {\n  hidden_size: 4\ntrain { steps: 2 }", "3:1", "is a \"}\" missing before it?"},
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
    {"optimizer { eps: 1e-46 }", "1:18", "it must be above 0 as float32"},
    {"schedule { min_lr_ratio: 1.5 }", "1:26", "at most 1"},
    {"schedule { decay_fraction: 0 }", "1:28", "above 0"},
    {"parallel { expert: 0 }", "1:20", "parallel.expert is 0"},
    {"parallel { expert_tensor: 2 }", "1:27", "parallel.expert_tensor is 2; it must be 1"},
    {"model { moe { num_experts: 5000 } }", "1:28", "at most 4096"},
    {"model { head_dim: 1026 }", "1:19", "at most 1024"},
    {"parallel { timeout_seconds: 0 }", "1:29", "above 0"},
    {"model { hidden_size: 1048577 }", "1:22", "at most 1048576"},
    {"model { head_dim: 0 }", "1:19", "model.head_dim is 0"},
    {"model { dense_layers: [0, 1,\n 1] }", "2:2", "same value twice"},
    {"model { dense_layers: 0 dense_layers: [2, -1] }", "1:43", "model.dense_layers is -1"},
    {"model { moe { balance: [AUX, 9] } }", "1:30", "no value of it"},
    {"model { moe { balance: [NONE, AUX] } }", "1:25", "NONE must stand alone"},
    {"model { moe { jitter_eps: 1 } }", "1:27", "below 1"},
    {"model { moe { capacity_factor: -1 } }", "1:32", "at least 0"},
    {"data { blend { path: 'a' weight: 0 } }", "1:34", "data.blend[0].weight is 0; it must be above 0"},
    {"data {\n blend { path: 'a' }\n blend { path: 'b' weight: nan } }", "3:28",
     "data.blend[1].weight is nan"},
    {"data { blend { path: 'a' weight: inf } }", "1:34", "not a finite number"},
    {"data { blend { path: 'a' }\nblend { weight: 2 } }", "2:7", "data.blend[1].path is missing"},
    {"data { blend: [{ path: 'a', weight: 1 },\n { path: 'b', weight: -1 }] }", "2:23",
     "data.blend[1].weight"},
    {"data { blend { file: 'a' } }", "1:16", "data.blend has no field \"file\"; its fields: path, weight"},
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

TEST(ConfigErrors, BetweenFieldsNameTheFields) {
  const std::vector<std::pair<Texts, std::string>> cases = {
      {{"model.moe.top_k=9"}, "model.moe.top_k (9) exceeds model.moe.num_experts (8)"},
      {{"model.num_key_value_heads=3"},
       "model.num_key_value_heads (3) must divide model.num_attention_heads (4)"},
      {{"model.num_attention_heads=3"}, "model.num_attention_heads (3) must divide model.hidden_size (64)"},
      {{"model.head_dim=15"}, "model.head_dim is 15"},
      {{"model.hidden_size=8192", "model.num_attention_heads=4"},
       "model.head_dim (2048), which is model.hidden_size"},
      {{"model.moe.pad_to_capacity=true"}, "model.moe.pad_to_capacity needs model.moe.capacity_factor"},
      {{"train.sequence_length=100000000"},
       "train.micro_batch_size (1) times train.sequence_length (100000000) times model.moe.top_k is more "
       "than"},
      {{"device=CUDA", "model.head_dim=320"}, "model.head_dim (320) exceeds 256"},
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
      {{"optimizer.moments=BF16", "optimizer.beta2=0.999"},
       "optimizer.beta2 (0.999) exceeds 0.9921875, the most that optimizer.moments (BF16) allow"},
      {{"optimizer.moments=BF16", "optimizer.beta1=0.995"}, "optimizer.beta1 (0.995) exceeds 0.9921875"},
      {{"train.cuda_graphs=true"}, "train.cuda_graphs needs device: CUDA"},
      {{"train.cuda_graphs=true", "device=CUDA", "parallel.expert=2"}, "the exchange of parallel.expert (2)"},
      {{"train.cuda_graphs=true", "device=CUDA", "model.moe.noisy_gate=true"}, "model.moe.noisy_gate is set"},
      {{"model.vocab_size=67108864", "model.hidden_size=1048576", "model.num_attention_heads=1024",
        "model.num_layers=16384"},
       "absurdly many"},
      {{"device=CUDA", "model.moe.num_experts=513"}, "model.moe.num_experts (513) exceeds 512"},
      {{"device=CUDA", "model.moe.num_experts=66", "model.moe.top_k=33"}, "model.moe.top_k (33) exceeds 32"},
      {{"device=CUDA", "model.moe.num_experts=66", "model.moe.num_groups=33"},
       "model.moe.num_groups (33) exceeds 32"},
      {{"device=CUDA", "model.head_dim=258"}, "model.head_dim (258) exceeds 256"},
      {{"data.train=x", "data.blend={path: 'y'}"}, "data.blend stands in place of data.train (x)"},
      {{"data.blend.path=x"}, "blend is a list; set it whole"},
      {{"sample.prompts=[a, b"}, "the list has no closing ]"},
      {{"data.blend=[{path: 'x', weight: 0}]"}, "data.blend[0].weight is 0"},
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

TEST(ConfigErrors, ABlendBesideTrainIsRefusedAtTheBlend) {
  EXPECT_EQ(first_line(config_error(std::string(kModel) + "data { train: 'x'\n blend { path: 'y' } }")),
            "f.txtpb:3:8: data.blend stands in place of data.train (x); give one of the two");
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

}  // namespace
}  // namespace switchyard
