#include "tests/support/training_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "parallel/comm/make.h"

namespace switchyard::test {

namespace {

constexpr int kVocabulary = 61;

constexpr const char* kSmall = R"(
  name: "small" seed: 5 threads: 1
  model {
    vocab_size: 61 hidden_size: 32 num_layers: 2 num_attention_heads: 4 num_key_value_heads: 2 head_dim: 8
    intermediate_size: 48
    moe {
      num_experts: 4 top_k: 2 moe_intermediate_size: 24
      balance: AUX aux_loss_coeff: 0.01 z_loss_coeff: 0.001 expert_bias: true bias_update_rate: 0.001
    }
  }
  train { steps: 20 global_batch_size: 8 micro_batch_size: 1 sequence_length: 32 }
  optimizer { lr: 3e-3 clip_norm: 0.5 weight_decay: 0.1 }
  schedule { kind: COSINE warmup_steps: 3 min_lr_ratio: 0.1 }
  checkpoint { every_steps: 0 } eval { every_steps: 0 } log { every_steps: 1000 }
)";

StepLine parse_line(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  StepLine line{
      json["step"], json["loss"], json["aux_loss"], json["z_loss"], json["grad_norm"], json["lr"], {}, {}};
  for (const auto& layer : json["layers"]) {
    line.load.push_back(layer["load"]);
    line.drop_rate.push_back(layer["drop_rate"]);
  }
  return line;
}

}  // namespace

std::string to_string(const Layout& layout) {
  return "W " + std::to_string(layout.world) + ", EP " + std::to_string(layout.expert);
}

std::ostream& operator<<(std::ostream& out, const StepLine& line) {
  return out << "step " << line.step << ": loss " << line.loss << ", aux " << line.aux_loss << ", z "
             << line.z_loss << ", gradient norm " << line.grad_norm << ", lr " << line.lr;
}

Steps read_steps(const std::string& run_dir) {
  Steps steps;
  std::ifstream in(run_dir + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) steps.push_back(parse_line(line));
  return steps;
}

double sum_of_metric(const std::string& run_dir, const std::string& metric) {
  double sum = 0;
  std::ifstream in(run_dir + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) sum += nlohmann::json::parse(line).at(metric).get<double>();
  return sum;
}

void write_training_tokens(const std::string& prefix) {
  std::mt19937 random(7);
  TokenFileWriter writer(prefix, token_type_for(kVocabulary));
  for (int document = 0; document < 16; ++document) {
    std::vector<int32_t> tokens;
    while (tokens.size() < 256) {
      const auto draw = [&] { return static_cast<int32_t>(random() % kVocabulary); };
      tokens.push_back(std::min({draw(), draw(), draw()}));
    }
    writer.append(tokens);
    writer.end_document();
  }
  writer.finish({.tokenizer = "byte", .vocab_size = kVocabulary});
}

Config small_config(const std::string& data, const std::vector<std::string>& changes) {
  return parse_config(kSmall, "small.txtpb", {"data.train=" + data}, changes);
}

void train_on(Config config, const Group& world, int expert, const std::string& run_dir, bool resume) {
  config.parallel.expert = expert;
  TrainingJob(config, world,
              {.run_dir = run_dir, .resume = resume, .local_size = world->size(), .nccl = false})
      .run();
}

Steps train(Config config, Layout layout, const std::string& run_dir, bool resume) {
  run_ranks(layout.world,
            [&](const Group& world) { train_on(config, world, layout.expert, run_dir, resume); });
  return read_steps(run_dir);
}

void expect_same_training(const Steps& actual, const Steps& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  double grown = tolerance;
  for (size_t i = 0; i < actual.size(); ++i) {
    const StepLine &a = actual[i], &e = expected[i];
    SCOPED_TRACE("step " + std::to_string(e.step));
    ASSERT_EQ(a.step, e.step);
    ASSERT_EQ(a.lr, e.lr);
    if (a.load != e.load) grown = 1000 * tolerance;
    ASSERT_NEAR(a.loss, e.loss, std::min(grown, 10 * tolerance) * e.loss);
    ASSERT_NEAR(a.aux_loss, e.aux_loss, grown * std::abs(e.aux_loss));
    ASSERT_NEAR(a.z_loss, e.z_loss, grown * e.z_loss);
    ASSERT_NEAR(a.grad_norm, e.grad_norm, 10 * grown * e.grad_norm);
  }
}

}  // namespace switchyard::test
