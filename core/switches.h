// How ops of this thread record, for core/ itself: others have NoGrad, recompute(), grad_enabled() and
// is_recomputing() (core/autograd.h).
#pragma once

namespace switchyard {

struct Switches {
  bool grad_enabled = true;
  bool recomputing = false;
};
Switches& switches();

}  // namespace switchyard
