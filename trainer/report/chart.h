// Line charts as HTML: an SVG that stretches to any width, with its labels beside
// it as text of constant size.
#pragma once

#include <string>
#include <vector>

#include "trainer/report/curves.h"

namespace switchyard {

struct Series {
  enum class Style { kFaint, kLine, kDots };

  std::string name;  // in the legend and the tooltip; a faint one may do without
  Curve curve;       // finite
  Style style = Style::kLine;
  int color = 0;  // one of the page's
};

struct Chart {
  std::string title, unit;
  std::vector<Series> series = {};
  bool from_zero = false;
  bool wide = false;
};

// "" where no series has a point.
std::string to_html(const Chart& chart);

}  // namespace switchyard
