#include "trainer/metrics/load_picture.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

constexpr Color kMore{217, 95, 2, 255}, kLess{31, 113, 189, 255}, kNone{96, 96, 96, 255};
constexpr double kStrongest = 216;  // alpha: text on it stays legible
constexpr double kCurve = 0.75;     // below 1: small differences show
constexpr double kOctaves = 2;      // from an even share to the full colour

size_t columns_of(const std::vector<std::vector<double>>& rows) {
  size_t columns = 1;
  for (const auto& row : rows) columns = std::max(columns, row.size());
  return columns;
}

}  // namespace

Color load_color(double share) {
  if (!(share > 0)) return kNone;
  const double distance = std::clamp(std::log2(share) / kOctaves, -1.0, 1.0);
  Color color = distance > 0 ? kMore : kLess;
  color.alpha = static_cast<uint8_t>(std::lround(kStrongest * std::pow(std::abs(distance), kCurve)));
  return color;
}

Image load_picture(const std::vector<std::vector<double>>& rows, int cell) {
  const int filled = cell > 4 ? cell - 1 : cell;  // the rest is a line between cells
  Image image(static_cast<int>(columns_of(rows)) * cell, std::max(1, static_cast<int>(rows.size()) * cell));
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t column = 0; column < rows[row].size(); ++column) {
      const Color color = load_color(rows[row][column]);
      const int left = static_cast<int>(column) * cell, top = static_cast<int>(row) * cell;
      for (int i = 0; i < filled * filled; ++i) image.at(left + i % filled, top + i / filled) = color;
    }
  }
  return image;
}

int picture_cell(const std::vector<std::vector<double>>& rows) {
  const size_t side = std::max(columns_of(rows), rows.size());
  return std::clamp(static_cast<int>(640 / side), 1, 24);
}

}  // namespace switchyard
