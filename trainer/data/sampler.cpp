#include "trainer/data/sampler.h"

#include <algorithm>
#include <bit>

#include "kernels/check.h"

namespace switchyard {
namespace {

// The finaliser of splitmix64: every input bit moves every output bit.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// (a * b) mod m where the product may exceed 64 bits.
int64_t multiply_mod(uint64_t a, uint64_t b, int64_t m) {
  return static_cast<int64_t>(static_cast<unsigned __int128>(a) * b % static_cast<uint64_t>(m));
}

}  // namespace

Permutation::Permutation(uint64_t n, uint64_t seed, uint64_t epoch) : n_(n) {
  CHECK(n > 0);
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2);
  mask_ = (uint64_t{1} << half_bits_) - 1;
  for (int round = 0; round < kRounds; ++round) keys_[round] = mix(mix(mix(seed) ^ epoch) ^ round);
}

uint64_t Permutation::operator()(uint64_t i) const {
  CHECK(i < n_, i, n_);
  do {
    uint64_t left = i >> half_bits_, right = i & mask_;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(right ^ key) & mask_);
      left = right;
      right = next;
    }
    i = left << half_bits_ | right;
  } while (i >= n_);
  return i;
}

Sampler::Sampler(const TokenFile& file, const SamplerOptions& options) : file_(file), options_(options) {
  CHECK(options.sequence_length > 0, options.sequence_length);
  if (file.tokens() < 2) {
    fail(Fault::kData, file.prefix(), ".bin: ", file.tokens(), " tokens, at least 2 are needed");
  }
  samples_ = static_cast<uint64_t>(std::max<int64_t>(1, (file.tokens() - 1) / options.sequence_length));
}

uint64_t Sampler::sample_of(uint64_t counter) const {
  if (!options_.shuffle) return counter;
  const uint64_t epoch = counter / samples_;
  return epoch * samples_ + Permutation(samples_, options_.seed, epoch)(counter % samples_);
}

Batch Sampler::make_batch(int64_t count) const {
  const auto size = static_cast<size_t>(count * options_.sequence_length);
  Batch batch{.ids = std::vector<int32_t>(size),
              .targets = std::vector<int32_t>(size, -1),
              .documents = {},
              .sequences = count,
              .sequence_length = options_.sequence_length};
  if (options_.documents) batch.documents.resize(size);
  return batch;
}

// Row `row` becomes `length` inputs from position `begin` of the ring on, and their targets.
void Sampler::fill(int64_t begin, int64_t length, int64_t row, Batch& batch) const {
  const int64_t at = row * options_.sequence_length;
  file_.read(begin, length, batch.ids.data() + at);
  std::copy_n(batch.ids.data() + at + 1, length - 1, batch.targets.data() + at);
  file_.read(begin + length, 1, batch.targets.data() + at + length - 1);
  if (options_.documents) fill_documents(begin, length, batch.documents.data() + at);
}

void Sampler::fill_documents(int64_t begin, int64_t length, int32_t* out) const {
  int64_t position = begin % file_.tokens();
  int64_t document = file_.document_of(position);
  int32_t number = 0;
  for (int64_t i = 0; i < length; ++number) {
    const int64_t end = file_.document_begin(document + 1);
    for (; i < length && position < end; ++i, ++position) out[i] = number;
    if (position == file_.tokens()) position = 0;
    document = file_.document_of(position);
  }
}

void Sampler::fill_sample(uint64_t counter, int64_t row, Batch& batch) const {
  const auto length = static_cast<uint64_t>(options_.sequence_length);
  fill(multiply_mod(sample_of(counter), length, file_.tokens()), options_.sequence_length, row, batch);
}

Batch Sampler::batch(uint64_t counter, int64_t count) const {
  Batch batch = make_batch(count);
  for (int64_t row = 0; row < count; ++row) fill_sample(counter + static_cast<uint64_t>(row), row, batch);
  return batch;
}

int64_t Sampler::evaluation_samples() const {
  return (file_.tokens() - 1 + options_.sequence_length - 1) / options_.sequence_length;
}

Batch Sampler::evaluation_batch(int64_t first, int64_t count) const {
  Batch batch = make_batch(count);
  for (int64_t row = 0; row < count && first + row < evaluation_samples(); ++row) {
    const int64_t begin = (first + row) * options_.sequence_length;
    fill(begin, std::min(options_.sequence_length, file_.tokens() - 1 - begin), row, batch);
  }
  return batch;
}

void MicroBatchPlan::check() const {
  CHECK(world > 0 && rank >= 0 && rank < world, world, " ", rank);
  CHECK(global_batch > 0 && micro_batch > 0 && global_batch % (micro_batch * world) == 0, global_batch, " ",
        micro_batch, " ", world);
}

uint64_t MicroBatchPlan::first_sample(int64_t step, int64_t micro_batch_index) const {
  CHECK(step >= 1 && micro_batch_index >= 0 && micro_batch_index < micro_batches(), step, " ",
        micro_batch_index);
  const int64_t index = rank * micro_batches() + micro_batch_index;
  return static_cast<uint64_t>((step - 1) * global_batch + index * micro_batch);
}

}  // namespace switchyard
