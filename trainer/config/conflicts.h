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
// Trained parameters, by formula: at once, of sizes that may be absurd.
double parameter_count(const ModelOptions&);
// What the device has no kernels for.
std::optional<Conflict> find_device_conflict(const ModelOptions&, Device);
// With one choice the weight must be the expert's score itself, or it is the constant 1 and the router learns
// nothing. An imported model may be so; training may not.
std::optional<Conflict> find_dead_router(const ModelOptions&);
// Of the job's fields, without the model's own.
std::optional<Conflict> find_conflict(const Config&);
// Of `parallel` with the model.
std::optional<Conflict> find_layout_conflict(const Config&);

}  // namespace switchyard::config
