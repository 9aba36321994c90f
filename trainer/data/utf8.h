// UTF-8, one character at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

struct Utf8Char {
  uint32_t code_point = 0;
  int bytes = 0;            // 0: no character starts here
  bool unfinished = false;  // the text ends before the character does
};

// The character at the start of `text`: shortest form only, no surrogates, at most U+10FFFF.
Utf8Char read_utf8(std::string_view text);

void append_utf8(std::string& text, uint32_t code_point);

// `bytes` as UTF-8; each byte that is none becomes U+FFFD. An unfinished character at the end goes into
// `rest` where one is given.
std::string to_utf8(std::string_view bytes, std::string* rest = nullptr);

}  // namespace switchyard
