// What a job will need, before it is started: one training step on the meta device, where memory is counted
// and nothing is computed. The same code runs, so the plan cannot drift from the program.
#pragma once

#include <string>

#include "trainer/config.h"

namespace switchyard {

struct Plan {
  int64_t world = 1, expert_parallel = 1;
  int64_t parameters_total = 0;   // logical, over all experts
  int64_t parameters_active = 0;  // that a token meets
  int64_t parameters_rank = 0;    // held by a rank
  // Bytes of a rank.
  int64_t weights = 0, gradients = 0, optimizer = 0;  // optimizer: moments and float32 masters
  int64_t activations = 0;                            // and workspace: the peak beyond the three above
  int64_t program = 0;  // the process itself: code, libraries, data it maps (CPU)
  int64_t memory() const { return weights + gradients + optimizer + activations + program; }
  // Bytes of a rank in a step. Exchange: to and from other ranks, if every token draws its experts evenly; with
  // a capacity an upper bound. Shadows: copies of experts and their gradients, at most. Gradients and
  // parameters: the whole runs that are summed and gathered, of which (N-1)/N leave one of N ranks.
  int64_t exchange = 0, shadows = 0, gradient_reduction = 0, parameter_gathering = 0;
  int64_t tokens_per_step = 0;
};

// Error{kUsage} where config and world do not fit.
Plan make_plan(Config config, int64_t world);

// Error{kResource} where `local_size` such ranks need more than this machine's memory has left, or the
// process may have: found before the first allocation, since Linux promises memory that it lacks and then
// kills. CPU only: a GPU's allocations fail when they are made.
void check_memory(const Config& config, int64_t world, int local_size);

std::string to_json(const Plan& plan);
std::string to_text(const Plan& plan);

}  // namespace switchyard
