// One checkpoint: a directory of safetensors shards and text files under a manifest. Host memory only;
// tensors go by their global names, so that any layout reads what any other wrote.
#pragma once

#include <optional>
#include <set>
#include <span>

#include "trainer/checkpoint/manifest.h"

namespace switchyard {

// Text files of a checkpoint: the ModelOptions; of a run its config and its state; Tokenizer::to_json(), where
// there is a tokenizer; of an imported model what ModelOptions has no place for.
inline constexpr char kModelText[] = "model.txtpb";
inline constexpr char kConfigText[] = "config.txtpb";
inline constexpr char kStateText[] = "state.json";
inline constexpr char kTokenizerText[] = "tokenizer.json";
inline constexpr char kSourceText[] = "hugging_face.json";

struct NamedTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;  // not owned; needed until write_shard() returns
};

// Every rank makes one and writes its shards; rank 0, when it holds the texts of all of them, finishes. What
// was written before finish() is in ".NAME.tmp" beside the directory and never taken for a checkpoint.
class CheckpointWriter {
 public:
  // Given up unfinished, a single process' writer leaves nothing behind.
  CheckpointWriter(const fs::path& directory, int64_t step, int rank = 0, int world = 1);

  // Writes KIND-RRRRR-of-WWWWW.safetensors and returns its description, for rank 0's finish(). No tensors: no
  // file, and an empty description.
  std::string write_shard(const std::string& kind, std::span<const NamedTensor> tensors);
  std::string write_shard(const std::string& kind, std::vector<TensorSource> tensors);

  // Rank 0, after every rank's shards: writes `texts` (file name -> contents) and the manifest, syncs, and
  // gives the directory its name. One of that name that was there before (damaged, most likely) is replaced.
  void finish(std::span<const std::string> shards, const std::map<std::string, std::string>& texts);

 private:
  void check_shards(const Manifest& manifest) const;
  void remove_strangers(const Manifest& manifest) const;

  AtomicDirectory directory_;
  int64_t step_;
  int rank_, world_;
};

enum class Verify : uint8_t {
  kOnRead,  // a file's checksum when it is first read
  kAll      // every file's on opening
};

// Opening checks the manifest, and that the directory holds exactly its files at their sizes. All errors are
// Error{kData} naming the file. Not for concurrent use.
class CheckpointReader {
 public:
  explicit CheckpointReader(fs::path directory, Verify verify = Verify::kOnRead);

  const fs::path& directory() const { return directory_; }
  int64_t step() const { return manifest_.step; }
  const Manifest& manifest() const { return manifest_; }

  bool has_text(const std::string& name) const { return manifest_.files.contains(name); }
  std::string text(const std::string& name);
  std::string path_of(const std::string& text) const { return (directory_ / text).string(); }

  bool contains(const std::string& name) const { return manifest_.tensors.contains(name); }
  std::vector<std::string> names(std::string_view prefix = "") const;
  const TensorEntry& entry(const std::string& name) const;  // unknown: Error{kData}

  // The whole tensor, converted to `wanted`.
  void read(const std::string& name, void* dst, DType wanted);

  // The tensor's verified bytes, mapped for as long as the reader lives.
  std::string_view bytes(const std::string& name);

  void verify_all();

 private:
  void check_directory() const;
  void verify_file(const std::string& name, std::string_view bytes);
  const SafetensorsFile& shard(const std::string& name);
  void check_shard(const std::string& name, const SafetensorsFile& file) const;

  fs::path directory_;
  Manifest manifest_;
  std::set<std::string> verified_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> shards_;
};

}  // namespace switchyard
