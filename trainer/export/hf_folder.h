// The weights of a Hugging Face model folder: model.safetensors, or the shards of
// model.safetensors.index.json.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "trainer/checkpoint/safetensors.h"

namespace switchyard {

class HfFolder {
 public:
  struct Entry {
    const TensorView* view = nullptr;
    const SafetensorsFile* file = nullptr;
  };

  // Every shard is opened and checked against the index; all errors are Error{kData} naming a file.
  explicit HfFolder(const fs::path& folder);

  const std::map<std::string, Entry>& tensors() const { return tensors_; }
  // The file that says which tensors there are.
  const fs::path& listing() const { return listing_; }

 private:
  void open_index(const fs::path& folder);
  void add_file(const fs::path& path);

  fs::path listing_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Entry> tensors_;
};

}  // namespace switchyard
