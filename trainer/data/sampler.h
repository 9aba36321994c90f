// The order of data. The tokens of a data set are a ring (documents concatenated, after the last token the
// first), and sample i is the S + 1 tokens from i * S on: S inputs, and the same moved by one as targets. One
// global sample counter is the whole position of a run: any rank count continues where another stopped.
//
// shuffle: an epoch is n = max(1, (tokens - 1) / S) samples, and counter c stands for sample
//   i(c) = e * n + permutation(seed, e)(c mod n),   e = c / n
// so each epoch sees each sample once, and the next epoch goes on in the ring where this one ended.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/data/token_file.h"

namespace switchyard {

// A permutation of 0 .. n - 1 in constant memory: a Feistel network on the next even number of bits, walked
// along its cycle until the value is below n (less than four steps on average).
class Permutation {
 public:
  Permutation(uint64_t n, uint64_t seed, uint64_t epoch);
  uint64_t operator()(uint64_t i) const;

 private:
  static constexpr int kRounds = 8;
  uint64_t n_, mask_;
  int half_bits_;
  uint64_t keys_[kRounds];
};

// Sequences of one micro-batch, row after row.
struct Batch {
  std::vector<int32_t> ids;      // [sequences * sequence_length]
  std::vector<int32_t> targets;  // the same; -1: no target
  // The same or empty: from 0 in each sequence, one more after each document's end.
  std::vector<int32_t> documents;
  int64_t sequences = 0;
  int64_t sequence_length = 0;
};

struct SamplerOptions {
  int64_t sequence_length = 0;
  bool shuffle = false;
  uint64_t seed = 0;
  bool documents = false;  // fill Batch::documents
};

class Sampler {
 public:
  // `file` must outlive the sampler. Fault::kData where it has fewer than two tokens.
  Sampler(const TokenFile& file, const SamplerOptions& options);

  uint64_t samples_per_epoch() const { return samples_; }
  uint64_t sample_of(uint64_t counter) const;  // i(c)

  // Samples counter .. counter + count - 1 in the order of training.
  Batch batch(uint64_t counter, int64_t count) const;
  // The same sample by sample: a batch of `count` rows to fill, and row `row` of one.
  Batch make_batch(int64_t count) const;
  void fill_sample(uint64_t counter, int64_t row, Batch& batch) const;

  // Once through the data set: every token but the first is a target exactly once. evaluation_samples()
  // samples in file order; what the last one lacks, and rows past it, are token 0 without a target.
  int64_t evaluation_samples() const;
  Batch evaluation_batch(int64_t first, int64_t count) const;

 private:
  void fill(int64_t begin, int64_t length, int64_t row, Batch& batch) const;
  void fill_documents(int64_t begin, int64_t length, int32_t* out) const;

  const TokenFile& file_;
  SamplerOptions options_;
  uint64_t samples_;
};

// Which samples a rank takes: step s (from 1) is samples (s - 1) * G .. s * G - 1, cut into micro-batches of
// B; rank r of W takes the r-th of W equal blocks of micro-batches.
struct MicroBatchPlan {
  int64_t global_batch = 1, micro_batch = 1;  // sequences
  int world = 1, rank = 0;

  void check() const;  // that the sizes divide (check_world has told the user)
  int64_t micro_batches() const { return global_batch / micro_batch / world; }  // a rank's, each step
  uint64_t first_sample(int64_t step, int64_t micro_batch_index) const;
};

}  // namespace switchyard
