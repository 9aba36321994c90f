// Training on several data sets blended by weight.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"
#include "trainer/data/training_data.h"

namespace switchyard::test {
namespace {

using Row = std::vector<int32_t>;

class Blend : public testing::Test {
 protected:
  // `count` tokens from `first` on, one more each.
  std::string write_tokens(const std::string& name, int32_t first, int64_t count, int64_t vocabulary = 1000,
                           uint64_t fingerprint = 0) {
    Row tokens(static_cast<size_t>(count));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = first + static_cast<int32_t>(i);
    TokenFileWriter writer(folder_ / name, TokenType::kU16);
    writer.append(tokens);
    writer.end_document();
    writer.finish({.tokenizer = "byte", .tokenizer_fingerprint = fingerprint, .vocab_size = vocabulary});
    return folder_ / name;
  }

  // Two sets of the training tests' tokens, the second with half of the weight.
  std::string two_sets() {
    write_training_tokens(folder_ / "a");
    write_training_tokens(folder_ / "b");
    return "data { train: '' blend { path: '" + (folder_ / "a") + "' weight: 2 } blend { path: '" +
           (folder_ / "b") + "' } } ";
  }

  Config config(const std::string& data, int64_t steps) {
    Config config = small_config("", {data, "checkpoint { every_steps: 3 }"});
    config.train.steps = steps;
    return config;
  }

  TemporaryFolder folder_;
};

TEST_F(Blend, EachSetIsWalkedInItsOwnOrder) {
  TrainingData data({{write_tokens("a", 0, 40), 3}, {write_tokens("b", 500, 40), 1}});
  data.start({.sequence_length = 2});
  EXPECT_EQ(data.batch(0, 6).ids, (Row{0, 1, 2, 3, 4, 5, 500, 501, 6, 7, 8, 9}));
  EXPECT_EQ(data.tokens_of(6), (std::vector<int64_t>{10, 2}));
}

TEST_F(Blend, EachSetSeesItsSamplesOncePerEpoch) {
  TrainingData data({{write_tokens("a", 0, 21), 1}, {write_tokens("b", 500, 41), 3}});
  data.start({.sequence_length = 2, .shuffle = true, .seed = 3});
  Row first, second;  // the first tokens of the samples of a set's first epoch
  for (uint64_t i = 0; i < 40; ++i) {
    const int32_t token = data.batch(i, 1).ids[0];
    Row& row = token < 500 ? first : second;
    if (row.size() < (token < 500 ? 10U : 20U)) row.push_back(token);
  }
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  ASSERT_EQ(first.size(), 10U);
  ASSERT_EQ(second.size(), 20U);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(first[i], static_cast<int32_t>(2 * i));
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(second[i], static_cast<int32_t>(500 + 2 * i));
}

TEST_F(Blend, EqualSetsAreNotShuffledAlike) {
  const std::string path = write_tokens("a", 0, 201);
  TrainingData data({{path, 1}, {path, 1}});
  data.start({.sequence_length = 2, .shuffle = true, .seed = 3});
  int same = 0;
  for (uint64_t i = 0; i < 200; i += 2) same += data.batch(i, 1).ids == data.batch(i + 1, 1).ids;
  EXPECT_LT(same, 10);  // one is expected by chance
}

TEST_F(Blend, AnyCutGivesTheSameBatches) {
  const std::vector<DataSetOptions> sets = {{write_tokens("a", 0, 90), 0.6},
                                            {write_tokens("b", 500, 70), 0.4}};
  TrainingData whole(sets), parts(sets);
  for (TrainingData* data : {&whole, &parts}) data->start({.sequence_length = 4, .shuffle = true, .seed = 9});
  const Row expected = whole.batch(0, 48).ids;
  for (const int64_t size : {3, 1, 8}) {
    Row ids;
    for (int64_t i = 0; i < 48; i += size) {
      const Row part = parts.batch(static_cast<uint64_t>(i), size).ids;
      ids.insert(ids.end(), part.begin(), part.end());
    }
    EXPECT_EQ(ids, expected) << size;
  }
}

TEST_F(Blend, VocabulariesMustAgree) {
  const std::vector<DataSetOptions> sets = {{write_tokens("a", 0, 9), 1}, {write_tokens("b", 0, 9, 999), 1}};
  EXPECT_EQ(fault_of([&] { TrainingData data(sets); }, "b.json: a vocabulary of 999 tokens"), Fault::kData);
}

TEST_F(Blend, AValidationSetOfAnotherTokenizerIsRefused) {
  const TrainingData data({{write_tokens("a", 0, 9), 1}});
  const auto check = [&](const std::string& prefix) { data.check_tokenizer(TokenFile::open(prefix)); };
  check(write_tokens("b", 500, 9));
  const std::string other = write_tokens("c", 0, 9, 1000, 7), larger = write_tokens("d", 0, 9, 1001);
  EXPECT_EQ(fault_of([&] { check(other); }, "c.json: another tokenizer than that of"), Fault::kData);
  EXPECT_EQ(fault_of([&] { check(larger); }, "d.json: a vocabulary of 1001 tokens"), Fault::kData);
  std::filesystem::remove(other + ".json");  // nobody knows what its tokens are
  check(other);
}

TEST_F(Blend, EverySetIsChecked) {
  const std::string good = write_tokens("a", 0, 9);
  EXPECT_EQ(fault_of([&] { TrainingData({{good, 1}, {folder_ / "none", 1}}); }, "none.idx"), Fault::kData);
  std::filesystem::remove(write_tokens("b", 990, 9) + ".json");
  const TrainingData data({{good, 1}, {folder_ / "b", 1}});
  EXPECT_EQ(data.vocab_size(), 1000);
  EXPECT_EQ(fault_of([&] { data.check_tokens(998); }, "b.bin: token 8"), Fault::kData);
}

TEST_F(Blend, OfOneSetIsThatSetBitForBit) {
  write_training_tokens(folder_ / "a");
  const std::string blend = "data { train: '' blend { path: '" + (folder_ / "a") + "' weight: 0.3 } }";
  Config alone = config("", 4);
  alone.data.train = folder_ / "a";
  EXPECT_EQ(train(config(blend, 4), {1, 1}, folder_ / "blend"), train(alone, {1, 1}, folder_ / "alone"));
}

TEST_F(Blend, ResumesInTheMiddleAtAnyLayout) {
  const std::string data = two_sets();
  const Steps straight = train(config(data, 8), {1, 1}, folder_ / "straight");
  train(config(data, 3), {4, 2}, folder_ / "halted");
  train(config(data, 6), {2, 1}, folder_ / "halted");
  expect_same_training(train(config(data, 8), {4, 4}, folder_ / "halted"), straight, 1e-5);
  train(config(data, 5), {1, 1}, folder_ / "same");
  EXPECT_EQ(train(config(data, 8), {1, 1}, folder_ / "same"), straight);
}

TEST_F(Blend, MetricsCountEachSetsTokens) {
  train(config(two_sets(), 3), {2, 1}, folder_ / "run");
  std::ifstream in(folder_ / "run/metrics.jsonl");
  std::string line;
  for (int step = 1; step <= 3; ++step) ASSERT_TRUE(std::getline(in, line));
  EXPECT_EQ(nlohmann::json::parse(line)["data_tokens"], (std::vector<int64_t>{16 * 32, 8 * 32}));
}

TEST_F(Blend, OtherWeightsAreNoOtherModel) {
  const std::string data = two_sets();
  train(config(data, 3), {1, 1}, folder_ / "run");
  Config changed = config(data, 5);
  changed.data.blend[0].weight = 7;
  EXPECT_EQ(train(changed, {1, 1}, folder_ / "run").size(), 5U);
}

}  // namespace
}  // namespace switchyard::test
