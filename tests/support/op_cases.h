// Every differentiable op, one line each: its name, input shapes, how to call it. For gradient checks, and
// for one backend against another.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "core/ops.h"

namespace switchyard::test {

struct OpCase {
  std::string name;
  std::vector<Shape> inputs;
  std::function<Var(const Vars&)> call;  // on any device and dtype of the inputs
  double tolerance = 1e-7;               // of the gradient check in double
  bool wide = false;                     // float or double only: never bf16

  // GoogleTest prints a parameter's bytes without this.
  friend std::ostream& operator<<(std::ostream& out, const OpCase& op) { return out << op.name; }
};

const std::vector<OpCase>& op_cases();

}  // namespace switchyard::test
