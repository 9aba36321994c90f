// JSON as strict as a checkpoint needs it: duplicate keys are refused, nesting and array length are bounded.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "trainer/files/files.h"

namespace switchyard {

struct JsonLimits {
  int depth = 32;  // of nested objects and arrays
  size_t array_length = SIZE_MAX;
};

// `file` is for messages only. Every error is Error{fault}.
nlohmann::json parse_json(std::string_view text, const fs::path& file, Fault fault,
                          const JsonLimits& limits = {});

// Hands over the members of the top-level object one by one and keeps none, so that a large hostile text
// costs no more memory than what the caller accepts.
using JsonMember = std::function<void(const std::string& key, const nlohmann::json& value)>;
void parse_json_members(std::string_view text, const fs::path& file, Fault fault, const JsonLimits& limits,
                        const JsonMember& member);

}  // namespace switchyard
