// What is wrong with one value.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trainer/config/excerpt.h"
#include "trainer/config/visitors.h"

namespace switchyard::config {
namespace {

// "at least 1", "above 0 and at most 1", "from 0 to below 1"
std::string range_text(const Rule& rule) {
  if (rule.low == rule.high) return fmt::format("{}", rule.low);
  std::string text = fmt::format("{} {}", rule.above ? "above" : "at least", rule.low);
  if (rule.high < kMost) text += fmt::format(" and {} {}", rule.below ? "below" : "at most", rule.high);
  return text;
}

}  // namespace

std::string complaint(const std::string& path, double value, const std::string& shown, const Rule& rule) {
  if (!std::isfinite(value)) return fmt::format("{} is {}, not a finite number", path, shown);
  // As float32, in which it may be computed with.
  const bool low = rule.above ? static_cast<float>(value) <= static_cast<float>(rule.low) : value < rule.low;
  const bool high = rule.below ? value >= rule.high : value > rule.high;
  if (!low && !high) return "";
  if (high && rule.high >= kMost) return fmt::format("{} is {}, which is absurdly large", path, shown);
  const bool rounds_to_low = low && value > rule.low;
  return fmt::format("{} is {}; it must be {}{}", path, shown, range_text(rule),
                     rounds_to_low ? " as float32" : "");
}

std::string complaint(const std::string& path, const std::string& value, const Rule& rule) {
  constexpr size_t kLongestName = 200;  // a directory's name, with room for suffixes
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (first_invalid_utf8(value) != std::string::npos) return path + " is not UTF-8 text";
  if (value.find('\0') != std::string::npos) return path + " holds a NUL byte";
  if (rule.text == Rule::Text::kPrompt) return "";
  if (std::any_of(value.begin(), value.end(), is_control)) return path + " holds a control character";
  if (rule.text != Rule::Text::kName) return "";
  if (value.empty()) return path + " is empty";
  if (value.size() > kLongestName)
    return fmt::format("{} has {} bytes; at most {} make a directory's name", path, value.size(),
                       kLongestName);
  if (value[0] == '.' || value.find_first_of("/\\") != std::string::npos) {
    return fmt::format("{} is \"{}\", which cannot name the run's directory (no \"/\", no \".\" in front)",
                       path, value);
  }
  return "";
}

}  // namespace switchyard::config
