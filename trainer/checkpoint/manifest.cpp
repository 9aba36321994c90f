#include "trainer/checkpoint/manifest.h"

#include "trainer/files/strict_json.h"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr char kFormat[] = "switchyard-checkpoint";
constexpr int kVersion = 1;

json to_json(const FileSum& sum) { return {{"bytes", sum.bytes}, {"xxh3", hex_of(sum.xxh3)}}; }

json to_json(const std::string& file, FileDType dtype, const std::vector<int64_t>& shape) {
  return {{"file", file}, {"dtype", std::string(name_of(dtype))}, {"shape", shape}};
}

// The checksum's line and the closing brace.
std::string trailer(std::string_view body) {
  return concat("  \"checksum\": \"xxh3-64:", hex_of(xxh3_of(body)), "\"\n}\n");
}

// Typed access to members; `what` leads the message.
class Fields {
 public:
  Fields(const json& object, std::string what) : object_(object), what_(std::move(what)) {
    if (!object.is_object()) fail(Fault::kData, what_, " is not an object");
  }

  const json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(Fault::kData, what_, " has no ", key);
    return *found;
  }

  std::string text(const char* key) const {
    if (!at(key).is_string()) fail(Fault::kData, what_, ": ", key, " is no string");
    return at(key).get<std::string>();
  }

  int64_t size(const char* key) const { return to_size(at(key), key); }

  int64_t to_size(const json& value, const char* key) const {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > INT64_MAX)
      fail(Fault::kData, what_, ": ", key, " is no size");
    return value.get<int64_t>();
  }

  uint64_t hex(const char* key) const {
    const std::string digits = text(key);
    if (digits.size() != 16 || digits.find_first_not_of("0123456789abcdef") != digits.npos)
      fail(Fault::kData, what_, ": ", key, " is no checksum");
    return std::stoull(digits, nullptr, 16);
  }

 private:
  const json& object_;
  std::string what_;
};

void read_files(Manifest& manifest, const json& files, const std::string& path) {
  for (const auto& [name, value] : files.items()) {
    const Fields fields(value, concat(path, ": file ", shown(name)));
    if (!is_plain_file_name(name)) fail(Fault::kData, path, ": ", shown(name), " is no plain file name");
    CHECK(manifest.files.emplace(name, FileSum{fields.size("bytes"), fields.hex("xxh3")}).second, name);
  }
}

void read_tensors(Manifest& manifest, const json& tensors, const std::string& path) {
  for (const auto& [name, value] : tensors.items()) {
    const std::string what = concat(path, ": tensor ", shown(name));
    const Fields fields(value, what);
    TensorEntry entry{.file = fields.text("file"), .dtype = FileDType::kF32, .shape = {}};
    if (!manifest.files.contains(entry.file)) fail(Fault::kData, what, " is in no listed file");
    const FileDTypeInfo* info = find_file_dtype(fields.text("dtype"));
    if (info == nullptr) fail(Fault::kData, what, " has the unknown dtype ", shown(fields.text("dtype")));
    entry.dtype = info->dtype;
    if (!fields.at("shape").is_array()) fail(Fault::kData, what, " has no shape");
    for (const json& size : fields.at("shape")) entry.shape.push_back(fields.to_size(size, "shape"));
    CHECK(manifest.tensors.emplace(name, std::move(entry)).second, "tensor ", name, " was written twice");
  }
}

}  // namespace

std::string to_text(const Manifest& manifest) {
  json text = {{"format", kFormat}, {"version", kVersion}, {"step", manifest.step}};
  text["files"] = json::object();
  text["tensors"] = json::object();
  for (const auto& [name, sum] : manifest.files) text["files"][name] = to_json(sum);
  for (const auto& [name, tensor] : manifest.tensors)
    text["tensors"][name] = to_json(tensor.file, tensor.dtype, tensor.shape);
  std::string body = "{\n";
  for (const auto& [key, value] : text.items()) body += concat("  \"", key, "\": ", value.dump(), ",\n");
  return body + trailer(body);
}

Manifest manifest_from_text(const std::string& text, const fs::path& path) {
  const size_t length = trailer("").size();
  const std::string_view body = std::string_view(text).substr(0, text.size() - std::min(length, text.size()));
  if (text.substr(body.size()) != trailer(body))
    fail(Fault::kData, path.string(), ": damaged (its checksum does not match)");
  const json value = parse_json(text, path, Fault::kData);
  const std::string file = path.string();
  const Fields fields(value, file);
  if (fields.text("format") != kFormat) fail(Fault::kData, file, ": is no Switchyard checkpoint");
  if (fields.size("version") != kVersion)
    fail(Fault::kData, file, ": version ", fields.size("version"), " of the format, this program reads ",
         kVersion);
  Manifest manifest;
  manifest.step = fields.size("step");
  read_files(manifest, fields.at("files"), file);
  read_tensors(manifest, fields.at("tensors"), file);
  return manifest;
}

std::string shard_text(const std::string& file, const FileSum& sum,
                       const std::vector<TensorSource>& tensors) {
  json shard = {{"files", {{file, to_json(sum)}}}, {"tensors", json::object()}};
  for (const TensorSource& tensor : tensors)
    shard["tensors"][tensor.name] = to_json(file, tensor.dtype, tensor.shape);
  return shard.dump();
}

void add_shard(Manifest& manifest, const std::string& shard) {
  const fs::path source = "shard report";
  const json value = parse_json(shard, source, Fault::kInternal);
  read_files(manifest, value.at("files"), source.string());
  read_tensors(manifest, value.at("tensors"), source.string());
}

}  // namespace switchyard
