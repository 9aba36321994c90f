#include "trainer/export/gguf.h"

#include <cstring>

namespace switchyard {
namespace {

constexpr uint32_t kVersion = 3;
constexpr int64_t kAlignment = 32;
constexpr size_t kMaxName = 63;
enum ValueType : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };

template <class T>
void append(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void append_text(std::string& out, std::string_view text) {
  append(out, static_cast<uint64_t>(text.size()));
  out += text;
}

int64_t padded(int64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

int64_t size_of(const TensorSource& tensor) { return bytes_of(tensor.dtype, element_count(tensor.shape)); }

uint32_t ggml_type(FileDType dtype) {
  if (dtype == FileDType::kF32) return 0;
  CHECK(dtype == FileDType::kBF16, name_of(dtype));
  return 30;
}

}  // namespace

void GgufFile::begin(const std::string& key, uint32_t type) {
  append_text(keys_, key);
  append(keys_, type);
  ++key_count_;
}

void GgufFile::begin_array(const std::string& key, uint32_t type, size_t count) {
  begin(key, kArray);
  append(keys_, type);
  append(keys_, static_cast<uint64_t>(count));
}

void GgufFile::set_text(const std::string& key, const std::string& value) {
  begin(key, kString);
  append_text(keys_, value);
}

void GgufFile::set_u32(const std::string& key, int64_t value) {
  CHECK(value >= 0 && value <= UINT32_MAX, key, " is ", value);
  begin(key, kU32);
  append(keys_, static_cast<uint32_t>(value));
}

void GgufFile::set_f32(const std::string& key, double value) {
  begin(key, kF32);
  append(keys_, static_cast<float>(value));
}

void GgufFile::set_bool(const std::string& key, bool value) {
  begin(key, kBool);
  append(keys_, static_cast<uint8_t>(value));
}

void GgufFile::set_texts(const std::string& key, std::span<const std::string> values) {
  begin_array(key, kString, values.size());
  for (const std::string& value : values) append_text(keys_, value);
}

void GgufFile::set_f32s(const std::string& key, std::span<const float> values) {
  begin_array(key, kF32, values.size());
  for (const float value : values) append(keys_, value);
}

void GgufFile::set_i32s(const std::string& key, std::span<const int32_t> values) {
  begin_array(key, kI32, values.size());
  for (const int32_t value : values) append(keys_, value);
}

void GgufFile::add(TensorSource tensor) {
  CHECK(tensor.name.size() <= kMaxName && !tensor.shape.empty() && tensor.shape.size() <= 4, tensor.name);
  tensors_.push_back(std::move(tensor));
}

std::string GgufFile::tensor_infos() const {
  std::string infos;
  int64_t offset = 0;
  for (const TensorSource& tensor : tensors_) {
    append_text(infos, tensor.name);
    append(infos, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size)
      append(infos, static_cast<uint64_t>(*size));
    append(infos, ggml_type(tensor.dtype));
    append(infos, static_cast<uint64_t>(offset));
    offset += padded(size_of(tensor));
  }
  return infos;
}

void GgufFile::write(const fs::path& path) const {
  std::string head = "GGUF";
  append(head, kVersion);
  append(head, static_cast<uint64_t>(tensors_.size()));
  append(head, key_count_);
  head += keys_;
  head += tensor_infos();
  OutputFile file(path);
  const auto pad = [&] {
    file.write(std::string(static_cast<size_t>(padded(file.size()) - file.size()), '\0'));
  };
  file.write(head);
  pad();
  for (const TensorSource& tensor : tensors_) {
    const int64_t before = file.size();
    tensor.produce([&](const void* bytes, size_t size) { file.write(bytes, size); });
    CHECK(file.size() - before == size_of(tensor), tensor.name, ": ", file.size() - before,
          " bytes were produced");
    pad();
  }
  file.commit();
}

}  // namespace switchyard
