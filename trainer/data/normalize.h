// Unicode normalisation form C: characters composed, marks in their canonical order.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

// Bytes that are no UTF-8 stay as they are.
std::string to_nfc(std::string_view text);

// True for text below U+0300, which is composed already; false says nothing.
bool is_surely_nfc(std::string_view text);

}  // namespace switchyard
