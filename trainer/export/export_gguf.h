// A checkpoint becomes one .gguf file for llama.cpp.
#pragma once

#include <functional>

#include "kernels/dtype.h"
#include "trainer/files/files.h"

namespace switchyard {

struct GgufExport {
  fs::path checkpoint;
  fs::path out;               // a directory that must not exist or be empty; it will hold model.gguf
  std::string arch = "auto";  // or llama.cpp's name
  DType dtype = DType::kF32;  // or BF16
  std::function<void(const std::string&)> warn = nullptr;
};

// Returns the architecture's name.
std::string export_gguf(const GgufExport& job);

}  // namespace switchyard
