// The source line and caret under a message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard::config {

// The line's text without its end; "" past the end of the text.
std::string_view line_of(std::string_view text, int line);
// Between bytes and the tokenizer's columns, in which a tab goes to the next multiple of 8.
size_t byte_offset(std::string_view line, int tokenizer_column);
int tokenizer_column(std::string_view line, size_t byte_offset);
size_t code_points(std::string_view utf8);
// npos where all of it is UTF-8.
size_t first_invalid_utf8(std::string_view text);
// "  line\n  ^": a long line is cut around the caret, tabs stay tabs in both lines.
std::string excerpt(std::string_view line, size_t offset);

}  // namespace switchyard::config
