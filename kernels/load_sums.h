// What a MoE layer saw, added to sums that stay on the device for a whole step (parallel/expert/load.h).
// Doubles, which count exactly far beyond any step.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

// sums[e] += assigned[e],   sums[experts + e] += kept[e],   sums[2 experts] += tokens
struct AddLoads {
  double* sums;             // [2 experts + 1]
  const int64_t* assigned;  // [experts]
  const int64_t* kept;      // [experts]
  int64_t experts, tokens;
};
void run(Cpu, const AddLoads&);
void run(Cuda, const AddLoads&);

}  // namespace switchyard::kernels
