// Which expert stands where. The experts of a layer have as many slots, numbered through the ranks
// of an ep group: rank r holds slots first_expert(r) .. first_expert(r + 1) - 1 (parallel/mesh.h).
// At the start expert e stands in slot e. Experts may be moved while a job trains; nothing but its
// speed depends on where they stand.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "parallel/mesh.h"

namespace switchyard {

using Slots = std::vector<int64_t>;  // [experts] the expert in each slot

Slots first_slots(int64_t experts);
bool is_permutation(const Slots& slots);

// What the fullest rank has of `load` [experts].
int64_t fullest_rank(const Slots& slots, const std::vector<int64_t>& load, int ranks);
// (fullest - mean) / mean of what the ranks have of it; 0 for no load.
double rank_overload(const Slots& slots, const std::vector<int64_t>& load, int ranks);

// Experts change places, two at a time, as long as that lowers the fuller of their ranks by more than a
// hundredth of the mean. The same on every rank.
Slots balanced_slots(Slots slots, const std::vector<int64_t>& load, int ranks);

// x [slots of this rank, ...]: the row of an expert goes from its slot in `from` to its slot in `to`. All
// ranks of the ep group.
void move_rows(const Tensor& x, const Slots& from, const Slots& to, const Axis& ep);

}  // namespace switchyard
