#include "trainer/data/utf8.h"

#include <bit>

namespace switchyard {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;

}  // namespace

Utf8Char read_utf8(std::string_view text) {
  if (text.empty()) return {};
  const auto lead = static_cast<uint8_t>(text[0]);
  if (lead < 0x80) return {lead, 1, false};
  const int length = std::countl_one(lead);
  if (length < 2 || length > 4) return {};
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  uint32_t code_point = lead & (0x7F >> length);
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) == text.size()) {
      // The bits still to come cannot repair a form that is too long or a value that is too large.
      const int missing = 6 * (length - i);
      const uint32_t low = code_point << missing, high = low | ((1U << missing) - 1);
      return {0, 0, high >= kSmallest[length] && low <= 0x10FFFF && !(low >= 0xD800 && high <= 0xDFFF)};
    }
    const auto next = static_cast<uint8_t>(text[i]);
    if ((next & 0xC0) != 0x80) return {};
    code_point = code_point << 6 | (next & 0x3F);
  }
  const bool legal = code_point >= kSmallest[length] && code_point <= 0x10FFFF &&
                     !(code_point >= 0xD800 && code_point <= 0xDFFF);
  return legal ? Utf8Char{code_point, length, false} : Utf8Char{};
}

void append_utf8(std::string& text, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
  } else {
    if (code_point < 0x10000) {
      put(0xE0 | code_point >> 12);
    } else {
      put(0xF0 | code_point >> 18);
      put(0x80 | (code_point >> 12 & 0x3F));
    }
    put(0x80 | (code_point >> 6 & 0x3F));
  }
  put(0x80 | (code_point & 0x3F));
}

std::string to_utf8(std::string_view bytes, std::string* rest) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Char next = read_utf8(bytes);
    if (next.unfinished && rest != nullptr) break;
    if (next.bytes > 0) {
      text.append(bytes.substr(0, static_cast<size_t>(next.bytes)));
    } else {
      append_utf8(text, kReplacement);
    }
    bytes.remove_prefix(next.bytes > 0 ? static_cast<size_t>(next.bytes) : 1);
  }
  if (rest != nullptr) rest->assign(bytes);
  return text;
}

}  // namespace switchyard
