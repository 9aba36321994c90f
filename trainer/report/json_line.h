// A line of metrics.jsonl, eval.jsonl or of what eval prints: a JSON object, and what to say where it is not
// what it should be. Every complaint is Error{kData} with file and line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

class JsonLine {
 public:
  using Json = nlohmann::json;

  JsonLine(const std::filesystem::path& file, int64_t number, std::string_view text);

  [[noreturn]] void wrong(const std::string& what) const;

  const Json& json() const { return json_; }
  // NaN where the field is missing or null: JSON has no other way to write one.
  double number(const char* name) const { return number(json_, name); }
  double number(const Json& object, const char* name) const;
  int64_t step() const;

  const Json& layers() const { return layers(json_); }
  const Json& layers(const Json& object) const;  // empty: a dense model
  int64_t layer_number(const Json& layer) const;
  // Each expert's share of all choices, times the number of experts.
  std::vector<double> shares(const Json& layer) const;

 private:
  std::filesystem::path file_;
  int64_t number_;
  Json json_;
};

}  // namespace switchyard
