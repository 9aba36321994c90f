#include "trainer/data/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "kernels/check.h"
#include "trainer/data/utf8.h"

namespace switchyard {
namespace {

// Bytes at the start of `text` that are UTF-8.
size_t valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const int length = read_utf8(text.substr(at)).bytes;
    if (length == 0) break;
    at += static_cast<size_t>(length);
  }
  return at;
}

void append_nfc(std::string_view valid, std::string& out) {
  if (valid.empty()) return;
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(valid.data()), std::ssize(valid), &result,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  CHECK(size >= 0, utf8proc_errmsg(size));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, std::free);
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
}

}  // namespace

std::string to_nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t valid = valid_prefix(text);
    append_nfc(text.substr(0, valid), out);
    text.remove_prefix(valid);
    const size_t bad = text.empty() ? 0 : 1;
    out.append(text.substr(0, bad));
    text.remove_prefix(bad);
  }
  return out;
}

// U+0300 is CC 80 in UTF-8, and lead bytes rise with their characters.
bool is_surely_nfc(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

}  // namespace switchyard
