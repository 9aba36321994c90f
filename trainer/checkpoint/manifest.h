// manifest.json: what a checkpoint's directory must hold, to the byte. It is written last.
//
//   { "files": {NAME: {"bytes": n, "xxh3": "hex"}}, "format": "switchyard-checkpoint", "step": n,
//     "tensors": {NAME: {"dtype": "F32", "file": NAME, "shape": [..]}}, "version": 1,
//     "checksum": "xxh3-64:0123456789abcdef" }
//
// "checksum" is the last line but the closing brace and covers every byte before that line.
#pragma once

#include <map>

#include "trainer/checkpoint/safetensors.h"

namespace switchyard {

inline constexpr char kManifestName[] = "manifest.json";

struct TensorEntry {
  std::string file;
  FileDType dtype = FileDType::kF32;
  std::vector<int64_t> shape;
  int64_t numel() const { return element_count(shape); }
};

struct Manifest {
  int64_t step = 0;
  std::map<std::string, FileSum> files;
  std::map<std::string, TensorEntry> tensors;
};

std::string to_text(const Manifest& manifest);

// Damage of any byte is Error{kData}.
Manifest manifest_from_text(const std::string& text, const fs::path& path);

// What one rank tells rank 0 about a shard that it wrote: a manifest of that one
// file, without step and checksum.
std::string shard_text(const std::string& file, const FileSum& sum, const std::vector<TensorSource>& tensors);

// Adds a shard to `manifest`; a tensor or file that is already there is a bug of the caller.
void add_shard(Manifest& manifest, const std::string& shard);

}  // namespace switchyard
