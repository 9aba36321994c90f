// The safetensors format: u64 length N | N bytes of JSON header | tensors, tiling the rest exactly.
#pragma once

#include <functional>
#include <map>

#include "trainer/checkpoint/convert.h"
#include "trainer/files/files.h"

namespace switchyard {

struct TensorView {
  FileDType dtype = FileDType::kF32;
  std::vector<int64_t> shape;
  std::string_view bytes;  // in the mapped file
  int64_t numel() const { return element_count(shape); }
};

std::string shape_text(const std::vector<int64_t>& shape);  // "[2, 3]"

// A file mapped and checked against every rule of the format; what breaks one is Error{kData} naming file,
// tensor and value.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const fs::path& path);

  const fs::path& path() const { return file_.path(); }
  std::string_view bytes() const { return file_.bytes(); }  // the whole file
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }

 private:
  MappedFile file_;
  std::map<std::string, TensorView> tensors_;
};

// Takes one piece of a tensor's bytes.
using Emit = std::function<void(const void* bytes, size_t size)>;

// A tensor to be written. `produce` is called once, when its turn comes, and emits exactly the tensor's
// bytes, in pieces of any size.
struct TensorSource {
  std::string name;
  FileDType dtype = FileDType::kF32;
  std::vector<int64_t> shape;
  std::function<void(const Emit&)> produce;
};

// Emits `n` elements at `data` as `to`, a bounded piece at a time.
void emit_converted(FileDType from, const void* data, int64_t n, FileDType to, const Emit& emit);

// Tensors sorted as the reference writer does (alignment descending, then name); atomic, synced.
FileSum write_safetensors(const fs::path& path, std::vector<TensorSource> tensors);

}  // namespace switchyard
