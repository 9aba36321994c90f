// Errors between fields.
#pragma once

#include <optional>
#include <string>

#include "trainer/config.h"

namespace switchyard::config {

struct Conflict {
  std::string path;  // the field to point at
  std::string message;
};

std::optional<Conflict> find_conflict(const ModelOptions&);
std::optional<Conflict> find_conflict(const Config&);  // without the model's own
// Trained parameters, embeddings and all experts included; a double, since absurd sizes are what it is asked
// for.
double parameter_count(const ModelOptions&);

}  // namespace switchyard::config
