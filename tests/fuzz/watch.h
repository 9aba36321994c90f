// What a reader may not do: crash, hang, ask for memory out of proportion, fail as only our own bugs fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace switchyard::fuzz {

// Bytes that a reader may hold at a time for an input of this size.
size_t allowed_bytes(size_t input);
inline constexpr unsigned kAllowedSeconds = 20;

struct Outcome {
  bool refused = false;
  std::string message;  // of the refusal
  std::string fault;    // what was wrong with the reader; empty: nothing
  size_t peak = 0;      // bytes held at a time
};

// Where a crash leaves the input that it came from.
void dump_crashes_to(const std::string& path);
// Runs `read` on the input and watches it.
Outcome watch(const std::string& input, const std::function<void()>& read);

}  // namespace switchyard::fuzz
