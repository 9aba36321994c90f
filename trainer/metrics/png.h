// Small pictures: heat maps for TensorBoard and for reports.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct Color {
  uint8_t red = 0, green = 0, blue = 0, alpha = 0;  // alpha 0: transparent
  bool operator==(const Color&) const = default;
};

struct Image {
  Image(int width, int height) : width(width), height(height), pixels(static_cast<size_t>(width) * height) {}

  Color& at(int x, int y) { return pixels[static_cast<size_t>(y) * width + x]; }  // from the top left

  int width, height;
  std::vector<Color> pixels;  // row by row
};

// 8 bits RGBA.
std::string to_png(const Image& image);

}  // namespace switchyard
