// What a job trains on: one data set, or several blended by weight.
//
// Sample i of a blend is the c-th sample of data set j, where j and c come from the weights alone
// (blend_order.h). Each set is walked in its own order (sampler.h), shuffled by (seed, its place in the list,
// epoch); the first one's order is that of the set alone, so a blend of one set is that set, bit for bit.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/data/blend_order.h"
#include "trainer/data/options.h"
#include "trainer/data/sampler.h"
#include "trainer/data/tokenizer.h"

namespace switchyard {

class TrainingData {
 public:
  // Opens every file. Fault::kData where one is missing or damaged, or where two sets disagree on vocabulary
  // or tokenizer.
  explicit TrainingData(std::vector<DataSetOptions> sets);

  const std::vector<DataSetOptions>& sets() const { return sets_; }
  const TokenFile& file(size_t set) const { return files_[set]; }
  int64_t tokens() const;
  int64_t bytes() const;  // of the files that are mapped
  // The sets' own where it is known, else the largest token + 1. May read all.
  int64_t vocab_size() const;
  bool knows_vocabulary() const { return first_that_knows() != nullptr; }
  // Fault::kData where `other`, a validation set, has another vocabulary or tokenizer and both are known.
  void check_tokenizer(const TokenFile& other) const;
  void check_tokens(int64_t vocab_size) const;   // TokenFile's, of each
  std::unique_ptr<Tokenizer> tokenizer() const;  // null: unknown
  uint64_t fingerprint() const;                  // of files and weights

  // Before the first batch.
  void start(const SamplerOptions& options);
  // Samples counter .. counter + count - 1 in the order of training.
  Batch batch(uint64_t counter, int64_t count);
  // Target tokens that each set gives of the first `samples`.
  std::vector<int64_t> tokens_of(uint64_t samples);

 private:
  const TokenFile* first_that_knows() const;  // its vocabulary; null: none does

  std::vector<DataSetOptions> sets_;
  std::vector<TokenFile> files_;
  BlendOrder order_;
  std::vector<Sampler> samplers_;
  int64_t sequence_length_ = 0;
};

}  // namespace switchyard
