// XXH64: the checksum of data files and the fingerprint of what a run was made from.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

inline uint64_t xxh64(std::string_view bytes, uint64_t seed = 0) {
  return XXH64(bytes.data(), bytes.size(), seed);
}

// The same over bytes that arrive in parts.
class Xxh64 {
 public:
  Xxh64() : state_(XXH64_createState()) { XXH64_reset(state_, 0); }
  ~Xxh64() { XXH64_freeState(state_); }
  Xxh64(const Xxh64&) = delete;
  Xxh64& operator=(const Xxh64&) = delete;

  void update(const void* bytes, int64_t count) { XXH64_update(state_, bytes, static_cast<size_t>(count)); }
  uint64_t digest() const { return XXH64_digest(state_); }

 private:
  XXH64_state_t* state_;
};

// 16 lowercase hexadecimal digits: JSON numbers would lose bits.
inline std::string hex_of(uint64_t value) {
  std::string text(16, '0');
  for (int digit = 15; digit >= 0; --digit, value >>= 4) text[digit] = "0123456789abcdef"[value & 15];
  return text;
}

}  // namespace switchyard
