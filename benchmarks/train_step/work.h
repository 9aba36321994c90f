// What the ops of a training step have to do, from the model's dimensions: floating-point operations of the
// products, and the least bytes of the others.
#pragma once

#include <map>
#include <string>

#include "trainer/model/options.h"

namespace switchyard::bench {

struct Work {
  double flops = 0;  // of matrix products; recomputed ones are not counted twice
  double bytes = 0;  // of ops that are bound by memory: every input read once, every output written once
};

struct StepShape {
  int64_t tokens, sequence_length;  // of the step, all micro-batches
  int ranks = 1;                    // which share the tokens, and each parameter's update
  bool bf16 = false;
  bool bf16_moments = false;
  bool on_cpu = false, one_micro_batch = false;
};

// What one rank does of a step, by the names of train_step/profile.h ("linear", "linear backward", ...;
// kUpdate is what follows the last op, with the products of gradients that are left to it and without the
// updates that are left to the next forward pass). An op that is missing has no count.
inline constexpr const char* kUpdate = "gradient norm, optimizer, metrics";
std::map<std::string, Work> work_of_step(const ModelOptions& options, const StepShape& shape);

// Measured with the threads at hand.
struct Ceilings {
  double flops = 0, bytes = 0;  // per second
};

// The product 1024^3 of this precision (bf16: the better of the two): the mean of eight, a fifth of a second.
double product_rate(bool bf16);
// A triad over three arrays of 64 MB.
double triad_rate();

}  // namespace switchyard::bench
