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
int rank_of(int64_t slot, int64_t experts, int ranks);
bool is_permutation(const Slots& slots);

// What the fullest rank has of `load` [experts].
int64_t fullest_rank(const Slots& slots, const std::vector<int64_t>& load, int ranks);
// (fullest - mean) / mean of what the ranks have of it; 0 for no load.
double rank_overload(const Slots& slots, const std::vector<int64_t>& load, int ranks);

// Experts change places, two at a time, as long as that lowers the fuller of their ranks by more than a
// hundredth of the mean. The same on every rank.
Slots balanced_slots(Slots slots, const std::vector<int64_t>& load, int ranks);

// The rows [slots of this rank, width] of a layer's experts, of which this rank may hold but a part.
struct SlotRows {
  int64_t width;  // elements of a row
  Tensor held;    // a run of elements; may reach beyond the rows on both sides
  int64_t begin;  // the place among the rows' elements of the first that is held
  Group holders;  // those whose runs make up the rows; null: this rank alone
};

// The row of an expert goes from its slot in `from` to its slot in `to`. All ranks of the ep group and of the
// holders.
void move_rows(const SlotRows& rows, const Slots& from, const Slots& to, const Axis& ep);

}  // namespace switchyard
