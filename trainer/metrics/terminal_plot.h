// Plain-text pictures for a terminal: a curve in Braille dots, loads as blocks. UTF-8,
// no colours, no control codes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct PlotSize {
  int columns = 64, rows = 12;  // characters, without the labels; one is 2 x 4 dots
};

// y over x, with x rising: the mean of the points of each column of dots, joined by lines, over an axis with
// the least and the greatest x; labels of y at the left. Points that are not finite, or beyond 1e100, or go
// back in x are left out. Empty where fewer than two remain.
std::string plot_curve(const std::vector<double>& x, const std::vector<double>& y, PlotSize size = {});

// One line for up to `per_line` shares: a block as high as the share (full: twice the even one) and the share
// itself, where 1.00 is the even share 1 / n. An expert without any has no block.
std::vector<std::string> load_lines(const std::vector<double>& load, int per_line = 8);

}  // namespace switchyard
