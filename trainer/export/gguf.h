// The GGUF v3 container, little-endian:
//
//   "GGUF" | u32 3 | u64 tensors | u64 keys | key values | tensor infos | pad to 32 | tensors, each padded to
//   32
//
// A string is u64 length and bytes. A tensor info is name, u32 rank, u64 sizes (fastest
// first), u32 type, u64 offset.
#pragma once

#include <span>

#include "trainer/checkpoint/safetensors.h"

namespace switchyard {

class GgufFile {
 public:
  void set_text(const std::string& key, const std::string& value);
  void set_u32(const std::string& key, int64_t value);
  void set_f32(const std::string& key, double value);
  void set_bool(const std::string& key, bool value);
  void set_texts(const std::string& key, std::span<const std::string> values);
  void set_f32s(const std::string& key, std::span<const float> values);
  void set_i32s(const std::string& key, std::span<const int32_t> values);

  // F32 or BF16, at most four dimensions, the shape slowest first.
  void add(TensorSource tensor);

  // Atomic, synced.
  void write(const fs::path& path) const;

 private:
  void begin(const std::string& key, uint32_t type);
  void begin_array(const std::string& key, uint32_t type, size_t count);
  std::string tensor_infos() const;

  std::string keys_;  // encoded
  uint64_t key_count_ = 0;
  std::vector<TensorSource> tensors_;
};

}  // namespace switchyard
