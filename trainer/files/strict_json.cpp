#include "trainer/files/strict_json.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

using nlohmann::json;

// Builds the value event by event. nlohmann's own builder takes the last of two equal keys, and its variant
// with a callback is quadratic in an object's length.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(std::string_view text, const fs::path& file, Fault fault, const JsonLimits& limits,
          const JsonMember* member)
      : text_(text), file_(file), fault_(fault), limits_(limits), member_(member) {}

  json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(json::number_integer_t value) override { return put(value); }
  bool number_unsigned(json::number_unsigned_t value) override { return put(value); }
  bool number_float(json::number_float_t value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(json::object()); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    Level& level = levels_.back();
    if (level.value.contains(name)) fail(fault_, file_.string(), ": duplicate key ", shown(name));
    level.key = name;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    const std::string_view before = text_.substr(0, position > 0 ? position - 1 : 0);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const auto column = before.size() - (before.rfind('\n') + 1) + 1;
    fail(fault_, file_.string(), ":", line, ":", column, ": not valid JSON");
  }

 private:
  struct Level {
    json value;
    std::string key;  // of the member being read
  };

  bool open(json value) {
    if (static_cast<int>(levels_.size()) >= limits_.depth)
      fail(fault_, file_.string(), ": JSON nested deeper than ", limits_.depth, " levels");
    levels_.push_back({std::move(value), {}});
    return true;
  }

  bool close() {
    json value = std::move(levels_.back().value);
    levels_.pop_back();
    return put(std::move(value));
  }

  bool put(json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Level& level = levels_.back();
    if (level.value.is_array()) {
      if (level.value.size() >= limits_.array_length)
        fail(fault_, file_.string(), ": an array of more than ", limits_.array_length, " elements");
      level.value.push_back(std::move(value));
    } else if (member_ != nullptr && levels_.size() == 1) {
      (*member_)(level.key, value);
      level.value[level.key] = nullptr;  // remembered as seen
    } else {
      level.value[level.key] = std::move(value);
    }
    return true;
  }

  std::string_view text_;
  const fs::path& file_;
  Fault fault_;
  JsonLimits limits_;
  const JsonMember* member_;
  std::vector<Level> levels_;
  json root_;
};

json build(std::string_view text, const fs::path& file, Fault fault, const JsonLimits& limits,
           const JsonMember* member) {
  // nlohmann's lexer takes a NUL for the end of the text.
  const size_t nul = text.find('\0');
  if (nul != text.npos) fail(fault, file.string(), ": not valid JSON (a NUL at byte ", nul, ")");
  Builder builder(text, file, fault, limits, member);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace

json parse_json(std::string_view text, const fs::path& file, Fault fault, const JsonLimits& limits) {
  return build(text, file, fault, limits, nullptr);
}

void parse_json_members(std::string_view text, const fs::path& file, Fault fault, const JsonLimits& limits,
                        const JsonMember& member) {
  if (!build(text, file, fault, limits, &member).is_object())
    fail(fault, file.string(), ": the JSON text is not an object");
}

}  // namespace switchyard
