#include "trainer/data/blend_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"

namespace switchyard {
namespace {

constexpr int kBits = 53;
constexpr uint64_t kWhole = uint64_t{1} << kBits;

using Wide = unsigned __int128;

uint64_t saturated(Wide value) { return value > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(value); }

// Rounded down; what is lost goes to the largest share, so that they add up to kWhole.
std::vector<uint64_t> shares_of(const std::vector<double>& weights) {
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (const double weight : weights) sum += weight / largest;
  std::vector<uint64_t> shares;
  for (const double weight : weights) {
    const double share = std::floor(std::ldexp(weight / largest / sum, kBits));
    shares.push_back(std::max<uint64_t>(1, static_cast<uint64_t>(share)));
  }
  // Unsigned arithmetic wraps, so this also takes away.
  *std::max_element(shares.begin(), shares.end()) +=
      kWhole - std::accumulate(shares.begin(), shares.end(), uint64_t{0});
  return shares;
}

}  // namespace

BlendOrder::BlendOrder(const std::vector<double>& weights) {
  CHECK(!weights.empty());
  for (const double weight : weights) CHECK(std::isfinite(weight) && weight > 0, weight);
  shares_ = shares_of(weights);
  reset();
}

void BlendOrder::reset() {
  position_ = 0;
  counts_.assign(shares_.size(), 0);
  first_.assign(shares_.size(), 0);
  last_.resize(shares_.size());
  for (size_t j = 0; j < shares_.size(); ++j) last_[j] = (kWhole + shares_[j] - 1) / shares_[j] - 1;
}

size_t BlendOrder::next() const {
  size_t best = shares_.size();
  for (size_t j = 0; j < shares_.size(); ++j) {
    if (first_[j] <= position_ && (best == shares_.size() || last_[j] < last_[best])) best = j;
  }
  CHECK(best < shares_.size(), position_);
  return best;
}

void BlendOrder::take(size_t set) {
  const Wide share = shares_[set], given = ++counts_[set];
  first_[set] = saturated(given * kWhole / share);
  last_[set] = saturated(((given + 1) * kWhole + share - 1) / share - 1);
  ++position_;
}

void BlendOrder::advance_to(uint64_t sample) {
  if (sample < position_) reset();
  if (shares_.size() == 1) {
    counts_[0] = position_ = sample;
    return;
  }
  while (position_ < sample) take(next());
}

BlendOrder::Place BlendOrder::at(uint64_t sample) {
  advance_to(sample);
  if (shares_.size() == 1) return {0, sample};
  const size_t set = next();
  return {set, counts_[set]};
}

const std::vector<uint64_t>& BlendOrder::counts(uint64_t samples) {
  advance_to(samples);
  return counts_;
}

}  // namespace switchyard
