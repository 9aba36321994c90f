// Moves experts between the ranks of an ep group where one rank has held the fuller ones for a while: it is
// the one that the others wait for. Weights, masters and moments move together, and everything is known by
// the expert's global number, so training goes on as if nothing had happened.
//
// Loads that are uneven by chance are uneven in another way at the next step: what is balanced for the steps
// that were need not be for those to come. So an arrangement is found in the loads of some steps and tried,
// on paper, on those of as many more; experts move only where these would have gained by it.
#pragma once

#include "parallel/expert/moe_layer.h"

namespace switchyard {

// What a layer's loads have shown since its experts were last looked at. Pairs are tokens times choices.
struct ExpertTrial {
  std::vector<int64_t> loads;  // [experts] pairs
  Slots slots;                 // balanced for the loads before those
  int64_t spared = 0;          // pairs that the fullest rank would have had less, step by step

  // A step's loads, with the experts where they stand `now`.
  void see(const Slots& now, const std::vector<int64_t>& load, int ranks);
  // After `steps` of them: is `slots` enough better to move the experts there?
  bool worth_moving(const Slots& now, int ranks, int64_t steps) const;
};

class Rebalancer {
 public:
  // `every_steps`: how often to look, at the loads of as many steps; 0: never.
  Rebalancer(ParameterStore& store, std::vector<MoeLayer*> layers, int64_t every_steps);

  // Are there experts on several ranks, to be moved?
  bool active() const { return every_steps_ > 0 && !layers_.empty() && layers_[0]->ranks() > 1; }

  // After a step's update, on all ranks, with its loads over all ranks. Returns how many experts moved.
  int64_t after_step(int64_t step, const std::vector<LayerLoad>& loads);

  // Layer by layer: state of a run that is to resume with the same bits.
  const std::vector<ExpertTrial>& trials() const { return trials_; }
  void restore(size_t layer, ExpertTrial trial) { trials_[layer] = std::move(trial); }

 private:
  ParameterStore& store_;
  std::vector<MoeLayer*> layers_;
  int64_t every_steps_;
  std::vector<ExpertTrial> trials_;  // [layers]
};

}  // namespace switchyard
