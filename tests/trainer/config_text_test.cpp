#include <gtest/gtest.h>

#include <google/protobuf/descriptor.h>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "configs/schema/experiment.pb.h"
#include "tests/trainer/config_support.h"

namespace switchyard {
namespace {

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
  const std::string text =
      resolved_text(parse_after_model("sample { prompts: 'a' } data { blend { path: 'd' weight: 2 } }",
                                      {"model.dense_layers=1", "model.intermediate_size=8"}));
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

TEST(AdoptModel, ARouterWithoutGradientIsRefused) {
  ModelOptions checkpoint = parse(kModel).model;
  checkpoint.moe->top_k = 1;  // as an import may be
  Config config = parse("train { init_from: 'x' }");
  expect_contains(error_of([&] { adopt_model(config, checkpoint); }), "model.moe.normalize_topk is true");
  EXPECT_NO_THROW(model_from_text(model_to_text(checkpoint), "m"));
}

TEST(AdoptModel, ADenseCheckpointStaysDense) {
  const ModelOptions checkpoint =
      parse("model { hidden_size: 8 num_layers: 1 num_attention_heads: 2 intermediate_size: 8 }").model;
  Config config = parse("train { init_from: 'x' } model { moe { num_experts: 2 top_k: 1 } }");
  expect_contains(error_of([&] { adopt_model(config, checkpoint); }),
                  "model.moe is given, but absent in the checkpoint");
}

TEST(AdoptModel, TheLayoutWaitsForTheCheckpointsExperts) {
  Config config = parse("train { init_from: 'x' } parallel { expert: 2 } model { num_layers: 2 }");
  EXPECT_NO_THROW(adopt_model(config, parse(kModel).model));
}

const std::filesystem::path kRoot = SWITCHYARD_SOURCE_DIR;

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ConfigDocs, DescribeEveryFieldAndEnumValue) {
  const std::string text = contents(kRoot / "docs/config.md");
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
  for (const auto& entry : std::filesystem::directory_iterator(kRoot / "configs")) {
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
