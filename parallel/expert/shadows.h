// Shadow experts: where an expert's rank is fuller than another of its ep group, the other takes a copy of
// the expert's weights for one micro-batch and computes its own tokens' pairs with it, which then need not
// travel. The copy's gradient goes back and is added where the expert stands, so nothing changes but who
// computes (the dynamic shadowing of He et al., FasterMoE, PPoPP 2022; here to single ranks). It evens out
// loads that turn from step to step, which no placement (parallel/expert/rebalance.h) can.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "parallel/collectives.h"
#include "parallel/expert/exchange_meter.h"
#include "parallel/expert/slots.h"

namespace switchyard {

struct Shadow {
  int64_t slot;  // the expert's own
  int host;      // the rank that has the copy
  bool operator==(const Shadow&) const = default;
};
using Shadows = std::vector<Shadow>;  // by host, then by slot

// How many copies a rank takes at most in a layer: a quarter of what it holds, and at least one.
int64_t most_shadows(int64_t local_experts);

// From how many pairs on that it spares the fullest rank a copy pays, of an expert of three [hidden,
// intermediate] matrices on a CPU.
int64_t shadow_pairs_that_pay(int64_t hidden, int64_t intermediate);

// counts [ranks, experts]: the pairs of each rank's tokens with each expert. One copy after another for the
// rank that is the fullest by then, as long as that spares it `min_pairs`. The same on every rank.
Shadows choose_shadows(const Slots& slots, const std::vector<int64_t>& counts, int ranks, int64_t min_pairs);

// The copies of one layer and micro-batch, as one rank sees them.
class Lending {
 public:
  Lending() = default;  // no copies
  Lending(const Shadows& shadows, int64_t experts, const Axis& ep, std::shared_ptr<ExchangeMeter> meter,
          std::string label);

  bool empty() const { return shadows_ == 0; }                        // on all ranks of the ep group
  const std::vector<int64_t>& borrowed() const { return borrowed_; }  // slots whose copies are here, in order

  // Appends this rank's copies [borrowed, ...] to each of `weights` (which begin with the rank's own [local,
  // ...]), and returns `rows`: once their gradient has come back, so has that of the copies. The weights in
  // the order in which the backward pass is done with them. All ranks of the ep group.
  Var lend(const Var& rows, const std::vector<Vars*>& weights) const;

 private:
  Tensor leaving(const Var& weight) const;
  Tensor move(const Tensor& rows, const Counts& send, const Counts& recv) const;
  Tensor give_back(const Var& own, const Var& copies) const;

  Group group_;
  std::shared_ptr<ExchangeMeter> meter_;
  std::string label_;
  int64_t shadows_ = 0;
  std::vector<int64_t> lent_, borrowed_;  // places among this rank's experts, by host; slots, by owner
  Counts send_, recv_;                    // copies to and from each rank
};

}  // namespace switchyard
