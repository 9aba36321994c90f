#include "trainer/checkpoint/store.h"

#include <cstdio>
#include <utility>

namespace switchyard {
namespace {

std::string shard_name(const std::string& kind, int rank, int world) {
  char suffix[64];
  std::snprintf(suffix, sizeof suffix, "-%05d-of-%05d.safetensors", rank, world);
  return kind + suffix;
}

TensorSource source_of(const NamedTensor& tensor) {
  const int64_t count = element_count(tensor.shape);
  CHECK(count >= 0 && (count == 0 || tensor.data != nullptr), tensor.name);
  return {.name = tensor.name,
          .dtype = file_dtype(tensor.dtype),
          .shape = tensor.shape,
          .produce = [data = tensor.data, bytes = static_cast<size_t>(count * size_of(tensor.dtype))](
                         const Emit& emit) { emit(data, bytes); }};
}

}  // namespace

CheckpointWriter::CheckpointWriter(const fs::path& directory, int64_t step, int rank, int world)
    : directory_(directory, rank == 0), step_(step), rank_(rank), world_(world) {
  // With several ranks others may still be writing when one fails; a later start
  // cleans up (remove_leftovers).
  if (world > 1) directory_.keep();
}

std::string CheckpointWriter::write_shard(const std::string& kind, std::span<const NamedTensor> tensors) {
  std::vector<TensorSource> sources;
  sources.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) sources.push_back(source_of(tensor));
  return write_shard(kind, std::move(sources));
}

std::string CheckpointWriter::write_shard(const std::string& kind, std::vector<TensorSource> tensors) {
  if (tensors.empty()) return "";
  const std::string name = shard_name(kind, rank_, world_);
  const FileSum sum = write_safetensors(directory_.path() / name, tensors);
  return shard_text(name, sum, tensors);
}

void CheckpointWriter::finish(std::span<const std::string> shards,
                              const std::map<std::string, std::string>& texts) {
  Manifest manifest;
  manifest.step = step_;
  for (const std::string& shard : shards)
    if (!shard.empty()) add_shard(manifest, shard);
  check_shards(manifest);
  for (const auto& [name, text] : texts) {
    CHECK(is_plain_file_name(name) && name != kManifestName, name);
    CHECK(manifest.files.emplace(name, write_file(directory_.path() / name, text)).second, name,
          " was written twice");
  }
  remove_strangers(manifest);
  write_file(directory_.path() / kManifestName, to_text(manifest));
  directory_.commit();
}

// Each rank has written its own: to this directory, if it is the same for all.
void CheckpointWriter::check_shards(const Manifest& manifest) const {
  for (const auto& [name, sum] : manifest.files) {
    std::error_code error;
    const auto bytes = static_cast<int64_t>(fs::file_size(directory_.path() / name, error));
    if (!error && bytes == sum.bytes) continue;
    fail(Fault::kUsage, (directory_.path() / name).string(),
         ": rank 0 does not find what another rank wrote; the run's directory must be one that all ranks "
         "share");
  }
}

// What an earlier, interrupted attempt at this step left.
void CheckpointWriter::remove_strangers(const Manifest& manifest) const {
  std::vector<fs::path> strangers;
  for (const auto& entry : fs::directory_iterator(directory_.path()))
    if (!manifest.files.contains(entry.path().filename().string())) strangers.push_back(entry.path());
  std::error_code ignored;
  for (const fs::path& path : strangers) fs::remove_all(path, ignored);
}

CheckpointReader::CheckpointReader(fs::path directory, Verify verify) : directory_(std::move(directory)) {
  const fs::path path = directory_ / kManifestName;
  std::error_code error;
  if (!fs::is_directory(directory_, error)) fail(Fault::kData, directory_.string(), ": no such directory");
  if (!fs::exists(path, error))
    fail(Fault::kData, path.string(), ": missing, so this is no complete checkpoint");
  manifest_ = manifest_from_text(read_file(path), path);
  check_directory();
  if (verify == Verify::kAll) verify_all();
}

void CheckpointReader::check_directory() const {
  for (const auto& [name, sum] : manifest_.files) {
    const fs::path path = directory_ / name;
    std::error_code error;
    if (!fs::is_regular_file(path, error))
      fail(Fault::kData, path.string(), ": missing, the manifest lists it");
    const auto size = static_cast<int64_t>(fs::file_size(path, error));
    if (size != sum.bytes)
      fail(Fault::kData, path.string(), ": damaged (", size, " bytes, the manifest says ", sum.bytes, ")");
  }
  std::error_code error;
  for (fs::directory_iterator it(directory_, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name != kManifestName && !manifest_.files.contains(name))
      fail(Fault::kData, it->path().string(), ": the manifest does not list this file");
  }
  if (error) fail(Fault::kData, directory_.string(), ": cannot be read: ", error.message());
}

void CheckpointReader::verify_file(const std::string& name, std::string_view bytes) {
  if (verified_.contains(name)) return;
  const FileSum found{static_cast<int64_t>(bytes.size()), xxh3_of(bytes)};
  if (found != manifest_.files.at(name))
    fail(Fault::kData, (directory_ / name).string(), ": damaged (its checksum does not match)");
  verified_.insert(name);
}

std::string CheckpointReader::text(const std::string& name) {
  if (!has_text(name)) fail(Fault::kData, (directory_ / name).string(), ": missing");
  std::string contents = read_file(directory_ / name);
  verify_file(name, contents);
  return contents;
}

std::vector<std::string> CheckpointReader::names(std::string_view prefix) const {
  std::vector<std::string> found;
  for (const auto& [name, entry] : manifest_.tensors)
    if (name.starts_with(prefix)) found.push_back(name);
  return found;
}

const TensorEntry& CheckpointReader::entry(const std::string& name) const {
  const auto found = manifest_.tensors.find(name);
  if (found == manifest_.tensors.end())
    fail(Fault::kData, directory_.string(), ": the checkpoint has no tensor ", shown(name));
  return found->second;
}

const SafetensorsFile& CheckpointReader::shard(const std::string& name) {
  auto& file = shards_[name];
  if (file == nullptr) {
    auto opened = std::make_unique<SafetensorsFile>(directory_ / name);
    verify_file(name, opened->bytes());
    check_shard(name, *opened);
    file = std::move(opened);
  }
  return *file;
}

// The shard's own header and the manifest agree.
void CheckpointReader::check_shard(const std::string& name, const SafetensorsFile& file) const {
  size_t listed = 0;
  for (const auto& [tensor, entry] : manifest_.tensors) {
    if (entry.file != name) continue;
    ++listed;
    const auto found = file.tensors().find(tensor);
    if (found == file.tensors().end())
      fail(Fault::kData, file.path().string(), ": has no tensor ", shown(tensor), ", the manifest lists it");
    if (found->second.dtype != entry.dtype || found->second.shape != entry.shape)
      fail(Fault::kData, file.path().string(), ": tensor ", shown(tensor), " is ",
           name_of(found->second.dtype), " ", shape_text(found->second.shape), ", the manifest says ",
           name_of(entry.dtype), " ", shape_text(entry.shape));
  }
  if (listed != file.tensors().size())
    fail(Fault::kData, file.path().string(), ": has ", file.tensors().size(), " tensors, the manifest lists ",
         listed);
}

std::string_view CheckpointReader::bytes(const std::string& name) {
  return shard(entry(name).file).tensors().at(name).bytes;
}

void CheckpointReader::read(const std::string& name, void* dst, DType wanted) {
  const TensorEntry& tensor = entry(name);
  if (!is_convertible(tensor.dtype, file_dtype(wanted)))
    fail(Fault::kData, (directory_ / tensor.file).string(), ": tensor ", shown(name), " is ",
         name_of(tensor.dtype), ", which is not read as ", name_of(wanted));
  convert(tensor.dtype, bytes(name).data(), file_dtype(wanted), dst, tensor.numel());
}

void CheckpointReader::verify_all() {
  for (const auto& [name, sum] : manifest_.files) {
    const bool is_shard = name.ends_with(".safetensors");
    if (is_shard)
      shard(name);
    else
      verify_file(name, MappedFile(directory_ / name).bytes());
  }
}

}  // namespace switchyard
