// The frame of a report: one HTML file that needs nothing else.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

// Text for HTML, in elements and in attributes; what is not UTF-8 is replaced.
std::string escaped(std::string_view text);

std::string base64(std::string_view bytes);

// `body` is HTML.
std::string page(const std::string& title, const std::string& body);

inline constexpr int kColors = 6;  // of curves: classes s0 to s5

}  // namespace switchyard
