#include "trainer/data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/trainer/temporary_folder.h"

namespace switchyard {
namespace {

using Row = std::vector<int32_t>;

// Tokens 0, 1, 2, ... in documents of the given lengths.
class SamplerTest : public ::testing::Test {
 protected:
  const TokenFile& make(const std::vector<int64_t>& documents) {
    TokenFileWriter writer(folder_ / "d", TokenType::kU16);
    int32_t next = 0;
    for (const int64_t length : documents) {
      Row tokens(static_cast<size_t>(length));
      std::iota(tokens.begin(), tokens.end(), next);
      next += static_cast<int32_t>(length);
      writer.append(tokens);
      writer.end_document();
    }
    writer.finish({.tokenizer = "byte", .vocab_size = 257});
    file_ = TokenFile::open(folder_ / "d");
    return file_;
  }

  TemporaryFolder folder_;
  TokenFile file_;
};

TEST_F(SamplerTest, ASampleIsItsTokensAndTheNextOnes) {
  const Sampler sampler(make({10}), {.sequence_length = 3});
  const Batch batch = sampler.batch(1, 2);
  EXPECT_EQ(batch.ids, (Row{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(batch.targets, (Row{4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(batch.sequences, 2);
}

TEST_F(SamplerTest, TheTokensAreARing) {
  const Sampler sampler(make({10}), {.sequence_length = 3});
  const Batch batch = sampler.batch(3, 2);
  EXPECT_EQ(batch.ids, (Row{9, 0, 1, 2, 3, 4}));
  EXPECT_EQ(batch.targets, (Row{0, 1, 2, 3, 4, 5}));
}

TEST_F(SamplerTest, ADataSetShorterThanASampleWrapsInsideIt) {
  const Sampler sampler(make({3}), {.sequence_length = 5});
  EXPECT_EQ(sampler.samples_per_epoch(), 1U);
  EXPECT_EQ(sampler.batch(1, 1).ids, (Row{2, 0, 1, 2, 0}));
  EXPECT_EQ(sampler.batch(1, 1).targets, (Row{0, 1, 2, 0, 1}));
}

TEST_F(SamplerTest, FarCountersDoNotOverflow) {
  const Sampler sampler(make({10}), {.sequence_length = 3});
  const uint64_t counter = uint64_t{1} << 63;  // 2^63 * 3 mod 10 = 4
  EXPECT_EQ(sampler.batch(counter, 1).ids, (Row{4, 5, 6}));
}

TEST_F(SamplerTest, ShufflingVisitsEachSampleOncePerEpoch) {
  const Sampler sampler(make({100}), {.sequence_length = 3, .shuffle = true, .seed = 5});
  ASSERT_EQ(sampler.samples_per_epoch(), 33U);
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<uint64_t> seen, expected(33);
    for (uint64_t i = 0; i < 33; ++i) seen.push_back(sampler.sample_of(epoch * 33 + i));
    std::iota(expected.begin(), expected.end(), epoch * 33);
    EXPECT_NE(seen, expected);
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, expected);
  }
}

TEST_F(SamplerTest, AnyCutOfTheCounterGivesTheSameSamples) {
  const Sampler sampler(make({200}), {.sequence_length = 4, .shuffle = true, .seed = 1});
  const Batch whole = sampler.batch(0, 24);
  for (const int world : {1, 2, 4}) {
    Row ids;
    for (int64_t step = 1; step <= 3; ++step) {
      for (int rank = 0; rank < world; ++rank) {
        const MicroBatchPlan plan{.global_batch = 8, .micro_batch = 2, .world = world, .rank = rank};
        plan.check();
        for (int64_t m = 0; m < plan.micro_batches(); ++m) {
          const Batch part = sampler.batch(plan.first_sample(step, m), plan.micro_batch);
          ids.insert(ids.end(), part.ids.begin(), part.ids.end());
        }
      }
    }
    EXPECT_EQ(ids, whole.ids) << world << " ranks";
  }
}

TEST_F(SamplerTest, DocumentsAreNumberedFromZeroInEachSample) {
  const Sampler sampler(make({2, 0, 3, 1}), {.sequence_length = 6, .documents = true});
  EXPECT_EQ(sampler.batch(0, 1).documents, (Row{0, 0, 1, 1, 1, 2}));
  const Sampler longer(file_, {.sequence_length = 8, .documents = true});
  EXPECT_EQ(longer.batch(1, 1).documents, (Row{0, 0, 0, 1, 2, 2, 3, 3}));  // from position 2 on, over the end
}

TEST_F(SamplerTest, EvaluationTakesEveryTargetOnce) {
  const Sampler sampler(make({9}), {.sequence_length = 3});
  ASSERT_EQ(sampler.evaluation_samples(), 3);
  const Batch batch = sampler.evaluation_batch(0, 4);
  EXPECT_EQ(batch.ids, (Row{0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0}));
  EXPECT_EQ(batch.targets, (Row{1, 2, 3, 4, 5, 6, 7, 8, -1, -1, -1, -1}));
}

TEST_F(SamplerTest, OneTokenIsNotEnough) {
  EXPECT_EQ(fault_of([&] { Sampler(make({1}), {.sequence_length = 3}); }, "at least 2"), Fault::kData);
}

TEST(Permutation, IsABijectionForEverySmallSize) {
  for (uint64_t n = 1; n < 70; ++n) {
    std::vector<bool> hit(n);
    const Permutation permutation(n, n, 3);
    for (uint64_t i = 0; i < n; ++i) hit.at(permutation(i)) = true;
    EXPECT_EQ(std::count(hit.begin(), hit.end(), true), static_cast<int64_t>(n)) << n;
  }
}

TEST(Permutation, DependsOnSeedAndEpoch) {
  const Permutation base(1000, 1, 0), seed(1000, 2, 0), epoch(1000, 1, 1), again(1000, 1, 0);
  int same_seed = 0, same_epoch = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same_seed += base(i) == seed(i);
    same_epoch += base(i) == epoch(i);
    EXPECT_EQ(base(i), again(i));
  }
  EXPECT_LT(same_seed, 20);  // one is expected by chance
  EXPECT_LT(same_epoch, 20);
}

TEST(Permutation, CoversSizesBeyond32Bits) {
  const uint64_t n = (uint64_t{1} << 62) + 12345;
  const Permutation permutation(n, 7, 0);
  uint64_t large = 0;
  for (uint64_t i = 0; i < 100; ++i) large += permutation(i) > n / 2;
  EXPECT_GT(large, 20U);
  EXPECT_LT(large, 80U);
}

TEST(MicroBatchPlan, RanksTakeEqualBlocksOfMicroBatches) {
  const MicroBatchPlan plan{.global_batch = 16, .micro_batch = 2, .world = 4, .rank = 1};
  EXPECT_EQ(plan.micro_batches(), 2);
  EXPECT_EQ(plan.first_sample(1, 0), 4U);
  EXPECT_EQ(plan.first_sample(3, 1), 38U);
}

TEST(MicroBatchPlan, RefusesSizesThatDoNotDivide) {
  EXPECT_EQ(fault_of([] { MicroBatchPlan{.global_batch = 6, .micro_batch = 4}.check(); }), Fault::kInternal);
  EXPECT_EQ(fault_of([] { MicroBatchPlan{.global_batch = 6, .micro_batch = 2, .world = 2}.check(); }),
            Fault::kInternal);
}

}  // namespace
}  // namespace switchyard
