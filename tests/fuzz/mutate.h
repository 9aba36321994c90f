// One input made of another.
#pragma once

#include <string>
#include <vector>

#include "tests/fuzz/random.h"

namespace switchyard::fuzz {

inline constexpr size_t kMostBytes = 64 << 10;  // of an input

// One to eight changes: bits, bytes, numbers (as bytes and as digits), pieces cut, repeated, moved in from
// `other`, or taken from a list of words that readers stumble over.
std::string mutated(std::string text, const std::string& other, Random& random);

}  // namespace switchyard::fuzz
