#include "trainer/config/excerpt.h"

#include <algorithm>

namespace switchyard::config {
namespace {

constexpr int kTab = 8;

int advance(int column, char c) { return c == '\t' ? column + kTab - column % kTab : column + 1; }

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Length of the UTF-8 sequence at the start of `text`, 0 if there is none.
size_t sequence_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xc2 && lead < 0xe0   ? 2
                        : lead >= 0xe0 && lead < 0xf0 ? 3
                        : lead >= 0xf0 && lead < 0xf5 ? 4
                                                      : 0;
  if (length == 0 || text.size() < length) return 0;
  if (!std::all_of(text.begin() + 1, text.begin() + static_cast<long>(length), continues)) return 0;
  const auto second = static_cast<unsigned char>(text[1]);
  // Overlong forms, surrogates and code points past U+10FFFF.
  const bool bad = (lead == 0xe0 && second < 0xa0) || (lead == 0xed && second >= 0xa0) ||
                   (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second >= 0x90);
  return bad ? 0 : length;
}

}  // namespace

std::string_view line_of(std::string_view text, int line) {
  for (; line > 0; --line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  text = text.substr(0, text.find('\n'));
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text;
}

size_t byte_offset(std::string_view line, int column) {
  size_t offset = 0;
  for (int at = 0; offset < line.size() && at < column; ++offset) at = advance(at, line[offset]);
  return offset;
}

int tokenizer_column(std::string_view line, size_t offset) {
  int column = 0;
  for (size_t i = 0; i < std::min(offset, line.size()); ++i) column = advance(column, line[i]);
  return column;
}

size_t code_points(std::string_view utf8) {
  return static_cast<size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return !continues(c); }));
}

size_t first_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

std::string excerpt(std::string_view line, size_t offset) {
  constexpr size_t kBefore = 80, kAfter = 60;
  size_t start = offset > kBefore ? offset - kBefore : 0;
  while (start < offset && continues(line[start])) ++start;
  size_t end = std::min(line.size(), offset + kAfter);
  while (end < line.size() && continues(line[end])) ++end;
  std::string shown, caret;
  for (size_t i = start; i < end; ++i) {
    const char c = line[i];
    const bool control = (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
    shown += control ? '?' : c;
    if (i < offset && !continues(c)) caret += c == '\t' ? '\t' : ' ';
  }
  return "  " + shown + "\n  " + caret + "^";
}

}  // namespace switchyard::config
