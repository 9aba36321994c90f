// Moves experts between the ranks of an ep group where one rank has held the fuller ones for a while: it is
// the one that the others wait for. Weights, masters and moments move together, and everything is known by
// the expert's global number, so training goes on as if nothing had happened.
//
// Loads that are uneven by chance are uneven in another way at the next step: what is balanced for the steps
// that were need not be for those to come. So after every step a placement is found that balances the loads
// so far, and the next step's loads tell what it would have gained; experts move only if that is enough.
#pragma once

#include "parallel/expert/moe_layer.h"

namespace switchyard {

// A layer's loads. Sums of the last steps: each step takes an N-th off them and adds its own. Whole numbers,
// so that all ranks have the same. Pairs are tokens times choices.
struct ExpertTrial {
  std::vector<int64_t> loads;  // [experts] pairs
  Slots tried;                 // the placement that is balanced for those loads
  int64_t spared = 0;          // pairs that the fullest rank would have had less with such slots

  // A step's load, with the experts where they stand `now`, summed over about `steps` of them.
  void observe(const Slots& now, const std::vector<int64_t>& load, int ranks, int64_t steps);
  // Is `tried` enough better to move the experts there? `holders`: how many ranks hold copies of an expert.
  bool worth_moving(const Slots& now, int ranks, int holders = 1) const;
};

class Rebalancer {
 public:
  // `over_steps`: N above, and in how many steps a move is to be repaid; 0: nothing ever moves.
  Rebalancer(ParameterStore& store, std::vector<MoeLayer*> layers, Axis edp, int64_t over_steps);

  // Are there experts on several ranks, to be moved?
  bool active() const { return over_steps_ > 0 && !layers_.empty() && layers_[0]->ranks() > 1; }

  // After a step's update, on all ranks, with its loads over all ranks. Returns how many experts moved.
  int64_t after_step(const std::vector<LayerLoad>& loads);

  // Layer by layer: state of a run that is to resume with the same bits.
  const std::vector<ExpertTrial>& trials() const { return trials_; }
  void restore(size_t layer, ExpertTrial trial) { trials_[layer] = std::move(trial); }

 private:
  ParameterStore& store_;
  std::vector<MoeLayer*> layers_;
  Axis edp_;
  int64_t over_steps_;
  std::vector<ExpertTrial> trials_;  // [layers]
};

}  // namespace switchyard
