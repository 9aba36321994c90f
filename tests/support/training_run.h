// Whole training jobs on a few thousand generated tokens, for the tests of what a job promises.
#pragma once

#include <string>
#include <vector>

#include "trainer/job/job.h"

namespace switchyard::test {

// W ranks, EP degree E.
struct Layout {
  int world, expert;
};
std::string to_string(const Layout& layout);

// A line of metrics.jsonl, without the figures of time and memory.
struct StepLine {
  int64_t step;
  double loss, aux_loss, z_loss, grad_norm, lr;
  std::vector<std::vector<double>> load;  // [layer][expert]
  std::vector<double> drop_rate;          // [layer]
  bool operator==(const StepLine&) const = default;
};
using Steps = std::vector<StepLine>;
std::ostream& operator<<(std::ostream& out, const StepLine& line);
Steps read_steps(const std::string& run_dir);
double sum_of_metric(const std::string& run_dir, const std::string& metric);  // over the run's steps

// PREFIX.bin and .idx: 16 documents of random tokens below 61, low ones more often. No runs of one token at a
// sequence's start: their hidden states would be equal but for rounding, and rounding would choose which of
// them are dropped.
void write_training_tokens(const std::string& prefix);

// A model of two MoE layers with 4 experts and most of what may depend on the layout switched on: clipping,
// auxiliary losses, a selection bias. 20 steps of 8 sequences of 32 tokens, one a micro-batch. `changes` is
// merged last.
Config small_config(const std::string& data, const std::vector<std::string>& changes = {});

// Trains with thread-ranks. An Error of any rank is rethrown.
Steps train(Config config, Layout layout, const std::string& run_dir, bool resume = true);
// The same on the ranks of `world`: what rank 0 reads is what all return.
void train_on(Config config, const Group& world, int expert, const std::string& run_dir, bool resume = true);

// Losses, auxiliary losses and gradient norms of two runs, step by step.
//
// Equal to `tolerance` for as long as every expert has the same load. Gradients are sums, in another order on
// another layout, and their last bits reach the router: in one seed of five a token that lies between two
// experts goes the other way within 20 steps, with it the sign of a selection bias, and with that more
// tokens. After that the loss still agrees to 10 and the rest to 1000 times `tolerance` (measured on 16
// seeds: loss 7e-6, gradient norm 1e-3; before it 1e-8 and, two tokens having changed places, 1e-5).
void expect_same_training(const Steps& actual, const Steps& expected, double tolerance);

}  // namespace switchyard::test
