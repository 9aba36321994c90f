// What is fuzzed: every reader of files that come from elsewhere.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace switchyard::fuzz {

struct Target {
  std::string name;
  std::vector<std::string> seeds;  // inputs that are in order
  // Reads the input, through files in `folder` where the reader wants files. Returns, or throws Error.
  std::function<void(const std::string& input, const std::filesystem::path& folder)> read;
  // Makes a damaged input pass a checksum, so that the damage gets further. May be empty.
  std::function<void(std::string& input)> repair;
};

std::vector<Target> make_targets();

}  // namespace switchyard::fuzz
