#include "trainer/data/training_data.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace switchyard {
namespace {

std::vector<double> weights_of(const std::vector<DataSetOptions>& sets) {
  std::vector<double> weights;
  for (const DataSetOptions& set : sets) weights.push_back(set.weight);
  return weights;
}

// Of set 0 the seed itself. An odd factor: no two sets of a job share a seed.
uint64_t seed_of(uint64_t seed, size_t set) { return seed ^ (set * 0x9e3779b97f4a7c15); }

void check_agreement(const TokenFile& known, const TokenFile& file) {
  const Sidecar &a = *known.sidecar(), &b = *file.sidecar();
  if (a.vocab_size != b.vocab_size) {
    fail(Fault::kData, file.prefix(), ".json: a vocabulary of ", b.vocab_size, " tokens, but that of ",
         known.prefix(), " has ", a.vocab_size, " (both are to be prepared with the same --tokenizer)");
  }
  if (a.tokenizer_fingerprint != b.tokenizer_fingerprint)
    fail(Fault::kData, file.prefix(), ".json: another tokenizer than that of ", known.prefix());
}

}  // namespace

TrainingData::TrainingData(std::vector<DataSetOptions> sets)
    : sets_(std::move(sets)), order_(weights_of(sets_)) {
  for (const DataSetOptions& set : sets_) files_.push_back(TokenFile::open(set.path));
  for (const TokenFile& file : files_) check_tokenizer(file);
}

const TokenFile* TrainingData::first_that_knows() const {
  const auto known = std::find_if(files_.begin(), files_.end(),
                                  [](const TokenFile& file) { return file.sidecar().has_value(); });
  return known == files_.end() ? nullptr : &*known;
}

void TrainingData::check_tokenizer(const TokenFile& other) const {
  const TokenFile* known = first_that_knows();
  if (known != nullptr && other.sidecar()) check_agreement(*known, other);
}

int64_t TrainingData::tokens() const {
  int64_t sum = 0;
  for (const TokenFile& file : files_) sum += file.tokens();
  return sum;
}

int64_t TrainingData::bytes() const {
  int64_t sum = 0;
  for (const TokenFile& file : files_) sum += file.tokens() * size_of(file.type());
  return sum;
}

int64_t TrainingData::vocab_size() const {
  if (const TokenFile* known = first_that_knows()) return known->sidecar()->vocab_size;
  int64_t largest = 0;
  for (const TokenFile& file : files_) largest = std::max(largest, file.vocab_size());
  return largest;
}

void TrainingData::check_tokens(int64_t vocab_size) const {
  for (const TokenFile& file : files_) file.check_tokens(vocab_size);
}

std::unique_ptr<Tokenizer> TrainingData::tokenizer() const {
  for (const TokenFile& file : files_) {
    if (auto tokenizer = tokenizer_of(file)) return tokenizer;
  }
  return nullptr;
}

uint64_t TrainingData::fingerprint() const {
  if (files_.size() == 1) return files_[0].fingerprint();
  std::string all;
  for (size_t j = 0; j < files_.size(); ++j) {
    all += hex_of(files_[j].fingerprint()) + hex_of(std::bit_cast<uint64_t>(sets_[j].weight));
  }
  return xxh3_of(all);
}

void TrainingData::start(const SamplerOptions& options) {
  sequence_length_ = options.sequence_length;
  samplers_.clear();
  for (size_t j = 0; j < files_.size(); ++j) {
    SamplerOptions own = options;
    own.seed = seed_of(options.seed, j);
    samplers_.emplace_back(files_[j], own);
  }
}

Batch TrainingData::batch(uint64_t counter, int64_t count) {
  CHECK(!samplers_.empty());
  Batch batch = samplers_[0].make_batch(count);
  for (int64_t row = 0; row < count; ++row) {
    const BlendOrder::Place place = order_.at(counter + static_cast<uint64_t>(row));
    samplers_[place.set].fill_sample(place.counter, row, batch);
  }
  return batch;
}

std::vector<int64_t> TrainingData::tokens_of(uint64_t samples) {
  std::vector<int64_t> tokens;
  for (const uint64_t count : order_.counts(samples)) {
    tokens.push_back(static_cast<int64_t>(count) * sequence_length_);
  }
  return tokens;
}

}  // namespace switchyard
