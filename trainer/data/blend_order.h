// Which data set each sample of a blend comes from: after any n samples, each set has given n times its
// share, rounded down or up. Nothing here depends on ranks, and nothing has to be stored to go on: the whole
// state is a count per set, found again from the number of samples alone.
//
// Shares are whole numbers p_j of P = 2^53 that add up to P. The m-th sample (from 0) that set j gives may be
// sample i of the blend only if
//
//   floor(m P / p_j)  <=  i  <=  ceil((m + 1) P / p_j) - 1        (its first and its last place)
//
// which says the same as floor(n p_j / P) <= count_j(n) <= ceil(n p_j / P) for every n. Each place goes to
// the set, among those whose first place has come, whose last place is the earliest; among equals to the
// first in the list. Jobs of one unit each are so done in time whenever that can be at all (earliest deadline
// first), and here it can: the shares fill every place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace switchyard {

class BlendOrder {
 public:
  // Weights above 0 and finite; only their ratios matter.
  explicit BlendOrder(const std::vector<double>& weights);

  struct Place {
    size_t set = 0;
    uint64_t counter = 0;  // how many samples the set gave before
    bool operator==(const Place&) const = default;
  };
  // Of one sample of the blend. Costs O(sets) for each sample passed since the last call; to go back starts
  // at 0.
  Place at(uint64_t sample);
  // What each set gives of the first `samples`.
  const std::vector<uint64_t>& counts(uint64_t samples);

 private:
  void reset();
  void advance_to(uint64_t sample);
  size_t next() const;
  void take(size_t set);

  std::vector<uint64_t> shares_;
  uint64_t position_ = 0;               // samples passed
  std::vector<uint64_t> counts_;        // of them
  std::vector<uint64_t> first_, last_;  // places of each set's next sample
};

}  // namespace switchyard
