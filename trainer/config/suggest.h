// What a misspelt word may have meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard::config {

// "; did you mean \"x\"?" with the candidate nearest in edit distance, or "" where none is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace switchyard::config
