// --set path=value: strings and enum names bare, `x=[a, b]` replaces a list, `x+=v` appends to it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "configs/schema/experiment.pb.h"

namespace switchyard::config {

struct Override {
  std::string path;
  bool append = false;
  std::unique_ptr<Experiment> value;  // holds this one field
};

Override parse_override(const std::string& text);
void apply(const Override&, Experiment& onto);

}  // namespace switchyard::config
