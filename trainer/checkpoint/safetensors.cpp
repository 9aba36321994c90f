#include "trainer/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>

#include "trainer/files/strict_json.h"

namespace switchyard {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 64;
constexpr char kMetadata[] = "__metadata__";

// Reads the header's members into views whose offsets are still to be placed.
class HeaderReader {
 public:
  struct Entry {
    uint64_t begin, end;
    TensorView* view;
    const std::string* name;
  };

  HeaderReader(const fs::path& path, std::map<std::string, TensorView>& tensors)
      : path_(path), tensors_(tensors) {}

  void member(const std::string& name, const json& value) {
    if (!value.is_object()) refuse(name, "is not an object");
    if (name == kMetadata) return check_metadata(value);
    const auto place = tensors_.try_emplace(name).first;
    TensorView& view = place->second;
    view.dtype = read_dtype(name, value);
    view.shape = read_shape(name, value);
    const auto [begin, end] = read_offsets(name, value);
    check_size(name, view, begin, end);
    entries_.push_back({begin, end, &view, &place->first});
  }

  // Tensors must tile `data` from its first byte to its last.
  void place(std::string_view data) {
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
    });
    uint64_t next = 0;
    for (const Entry& entry : entries_) {
      if (entry.begin != next)
        refuse(*entry.name, concat("begins at byte ", entry.begin, " of the data, ", next, " expected (",
                                   entry.begin < next ? "overlap" : "hole", ")"));
      if (entry.end > data.size())
        refuse(*entry.name, concat("ends at byte ", entry.end, " of the data, which has ", data.size()));
      entry.view->bytes = data.substr(entry.begin, entry.end - entry.begin);
      next = entry.end;
    }
    if (next != data.size())
      fail(Fault::kData, path_.string(), ": ", data.size(), " bytes of data, the tensors cover ", next);
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& what) const {
    fail(Fault::kData, path_.string(), ": ", name == kMetadata ? "" : "tensor ", shown(name), " ", what);
  }

  const json& field(const std::string& name, const json& value, const char* key) const {
    const auto found = value.find(key);
    if (found == value.end()) refuse(name, concat("has no ", key));
    return *found;
  }

  FileDType read_dtype(const std::string& name, const json& value) const {
    const json& dtype = field(name, value, "dtype");
    if (!dtype.is_string()) refuse(name, "has a dtype that is no string");
    const FileDTypeInfo* info = find_file_dtype(dtype.get_ref<const std::string&>());
    if (info == nullptr) refuse(name, concat("has the unknown dtype ", shown(dtype.get<std::string>())));
    return info->dtype;
  }

  uint64_t read_size(const std::string& name, const json& value, const char* key) const {
    if (!value.is_number_unsigned()) refuse(name, concat("has a ", key, " with a number that is no size"));
    return value.get<uint64_t>();
  }

  std::vector<int64_t> read_shape(const std::string& name, const json& value) const {
    const json& shape = field(name, value, "shape");
    if (!shape.is_array()) refuse(name, "has a shape that is no array");
    std::vector<int64_t> sizes;
    for (const json& size : shape) {
      const uint64_t n = read_size(name, size, "shape");
      if (n > INT64_MAX) refuse(name, concat("has a size of ", n, " in its shape"));
      sizes.push_back(static_cast<int64_t>(n));
    }
    return sizes;
  }

  std::pair<uint64_t, uint64_t> read_offsets(const std::string& name, const json& value) const {
    const json& offsets = field(name, value, "data_offsets");
    if (!offsets.is_array() || offsets.size() != 2) refuse(name, "has data_offsets that are not two numbers");
    const uint64_t begin = read_size(name, offsets[0], "data_offsets");
    const uint64_t end = read_size(name, offsets[1], "data_offsets");
    if (begin > end) refuse(name, concat("ends (", end, ") before it begins (", begin, ")"));
    return {begin, end};
  }

  void check_size(const std::string& name, const TensorView& view, uint64_t begin, uint64_t end) const {
    const int64_t count = view.numel();
    int64_t bits = 0;
    if (count < 0 || __builtin_mul_overflow(count, info_of(view.dtype).bits, &bits))
      refuse(name, concat("has the shape ", shape_text(view.shape), ", which is too large"));
    if (bits % 8 != 0) refuse(name, concat("has ", bits, " bits, which is no number of whole bytes"));
    if (static_cast<uint64_t>(bits / 8) != end - begin)
      refuse(name, concat("has ", end - begin, " bytes, ", name_of(view.dtype), " ", shape_text(view.shape),
                          " takes ", bits / 8));
  }

  void check_metadata(const json& value) const {
    for (const auto& [key, text] : value.items())
      if (!text.is_string()) refuse(kMetadata, concat("has ", shown(key), ", which is no string"));
  }

  const fs::path& path_;
  std::map<std::string, TensorView>& tensors_;
  std::vector<Entry> entries_;
};

std::string_view header_of(const fs::path& path, std::string_view bytes) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length)
    fail(Fault::kData, path.string(), ": ", bytes.size(), " bytes, too short for a safetensors file");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kMaxHeaderBytes)
    fail(Fault::kData, path.string(), ": a header of ", length, " bytes, at most ", kMaxHeaderBytes,
         " are allowed");
  if (length > bytes.size() - sizeof length)
    fail(Fault::kData, path.string(), ": a header of ", length, " bytes in a file of ", bytes.size());
  const std::string_view header = bytes.substr(sizeof length, length);
  if (header.empty() || header[0] != '{')
    fail(Fault::kData, path.string(), ": the header does not begin with {");
  return header;
}

// {"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},...}, padded so that
// the data is 8-aligned. `tensors` are in their order in the file.
std::string header_text(const std::vector<TensorSource>& tensors) {
  std::string text = concat("{\"", kMetadata, "\":{\"format\":\"pt\"}");
  int64_t offset = 0;
  for (const TensorSource& tensor : tensors) {
    const int64_t end = offset + bytes_of(tensor.dtype, element_count(tensor.shape));
    text += concat(",", json(tensor.name).dump(), ":{\"dtype\":\"", name_of(tensor.dtype),
                   "\",\"shape\":", json(tensor.shape).dump(), ",\"data_offsets\":[", offset, ",", end, "]}");
    offset = end;
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += concat(text.size() > 1 ? ", " : "", size);
  return text + "]";
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  const std::string_view header = header_of(path, file_.bytes());
  HeaderReader reader(path, tensors_);
  const JsonLimits limits{.depth = 3, .array_length = kMaxRank};
  parse_json_members(header, path, Fault::kData, limits,
                     [&](const std::string& name, const json& value) { reader.member(name, value); });
  reader.place(file_.bytes().substr(sizeof(uint64_t) + header.size()));
}

void emit_converted(FileDType from, const void* data, int64_t n, FileDType to, const Emit& emit) {
  if (from == to) return emit(data, static_cast<size_t>(bytes_of(from, n)));
  constexpr int64_t kPiece = 1 << 16;
  std::vector<char> buffer(static_cast<size_t>(bytes_of(to, std::min(n, kPiece))));
  for (int64_t i = 0; i < n; i += kPiece) {
    const int64_t count = std::min(kPiece, n - i);
    convert(from, static_cast<const char*>(data) + bytes_of(from, i), to, buffer.data(), count);
    emit(buffer.data(), static_cast<size_t>(bytes_of(to, count)));
  }
}

FileSum write_safetensors(const fs::path& path, std::vector<TensorSource> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSource& a, const TensorSource& b) {
    return std::tie(b.dtype, a.name) < std::tie(a.dtype, b.name);
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    CHECK(element_count(tensors[i].shape) >= 0, tensors[i].name, " has the shape ",
          shape_text(tensors[i].shape));
    CHECK(tensors[i].name != kMetadata);
  }
  const std::string header = header_text(tensors);
  const uint64_t length = header.size();
  CHECK(length <= kMaxHeaderBytes, path.string(), ": a header of ", length, " bytes");
  OutputFile file(path);
  file.write(&length, sizeof length);
  file.write(header);
  for (const TensorSource& tensor : tensors) {
    const int64_t before = file.size();
    tensor.produce([&](const void* bytes, size_t size) { file.write(bytes, size); });
    CHECK(file.size() - before == bytes_of(tensor.dtype, element_count(tensor.shape)), tensor.name, ": ",
          file.size() - before, " bytes were produced");
  }
  return file.commit();
}

}  // namespace switchyard
