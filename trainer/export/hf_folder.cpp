#include "trainer/export/hf_folder.h"

#include <set>

#include "trainer/files/strict_json.h"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

// tensor -> file name, each name one that stays in the folder.
std::map<std::string, std::string> read_weight_map(const fs::path& path) {
  const json index = parse_json(read_file(path), path, Fault::kData);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    fail(Fault::kData, path.string(), ": has no weight_map");
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string())
      fail(Fault::kData, path.string(), ": the file of tensor ", shown(tensor), " is no string");
    const auto name = file.get<std::string>();
    if (!is_plain_file_name(name))
      fail(Fault::kData, path.string(), ": tensor ", shown(tensor), " is in ", shown(name),
           ", no plain file name");
    files[tensor] = name;
  }
  if (files.empty()) fail(Fault::kData, path.string(), ": its weight_map is empty");
  return files;
}

}  // namespace

HfFolder::HfFolder(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) fail(Fault::kData, folder.string(), ": no such directory");
  if (fs::exists(folder / kSingleFile, ignored)) {
    listing_ = folder / kSingleFile;
    add_file(listing_);
  } else if (fs::exists(folder / kIndexFile, ignored)) {
    listing_ = folder / kIndexFile;
    open_index(folder);
  } else {
    fail(Fault::kData, folder.string(), ": has neither ", kSingleFile, " nor ", kIndexFile);
  }
}

void HfFolder::add_file(const fs::path& path) {
  files_.push_back(std::make_unique<SafetensorsFile>(path));
  for (const auto& [name, view] : files_.back()->tensors())
    if (!tensors_.emplace(name, Entry{&view, files_.back().get()}).second)
      fail(Fault::kData, path.string(), ": tensor ", shown(name), " is in ",
           tensors_[name].file->path().filename().string(), " as well");
}

void HfFolder::open_index(const fs::path& folder) {
  const std::map<std::string, std::string> files = read_weight_map(listing_);
  std::set<std::string> names;
  for (const auto& [tensor, file] : files) names.insert(file);
  for (const std::string& name : names) {
    std::error_code ignored;
    if (!fs::exists(folder / name, ignored)) fail(Fault::kData, (folder / name).string(), ": missing");
    add_file(folder / name);
  }
  for (const auto& [tensor, file] : files) {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end() || found->second.file->path().filename() != file)
      fail(Fault::kData, (folder / file).string(), ": has no tensor ", shown(tensor), ", ", kIndexFile,
           " lists it");
  }
  for (const auto& [tensor, entry] : tensors_)
    if (!files.contains(tensor))
      fail(Fault::kData, entry.file->path().string(), ": tensor ", shown(tensor), " is not listed in ",
           kIndexFile);
}

}  // namespace switchyard
