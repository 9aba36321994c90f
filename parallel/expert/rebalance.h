// Moves experts between the ranks of an ep group where one rank has held the fuller ones for a while: it is
// the one that the others wait for. Weights, masters and moments move together, and everything is known by
// the expert's global number, so training goes on as if nothing had happened.
//
// A router with an auxiliary loss evens the experts out by itself, and what is left changes from step to
// step: then nothing moves. Experts stay uneven where the data is: one domain, a fine-tuned mixture, no
// auxiliary loss.
#pragma once

#include "parallel/expert/moe_layer.h"

namespace switchyard {

class Rebalancer {
 public:
  // `every_steps`: how often to look, at the loads of as many steps; 0: never.
  Rebalancer(ParameterStore& store, std::vector<MoeLayer*> layers, int64_t every_steps);

  // After a step's update, on all ranks, with its loads over all ranks. Returns how many experts moved.
  int64_t after_step(int64_t step, const std::vector<LayerLoad>& loads);

  // Loads since it last looked, layer by layer: state of a run that is to resume with the same bits.
  const std::vector<std::vector<int64_t>>& seen() const { return seen_; }
  void restore(std::vector<std::vector<int64_t>> seen) { seen_ = std::move(seen); }

 private:
  ParameterStore& store_;
  std::vector<MoeLayer*> layers_;
  int64_t every_steps_;
  std::vector<std::vector<int64_t>> seen_;  // [layers][experts] pairs
};

}  // namespace switchyard
