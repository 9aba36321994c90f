// How busy experts are, as colours: one scale for every picture of it.
#pragma once

#include "trainer/metrics/png.h"

namespace switchyard {

// `share`: 1 is an even share. Orange above it, blue below, the stronger the further away, full at
// four times and a quarter; grey for none at all. An even share is transparent, so that the
// picture suits light and dark pages.
Color load_color(double share);

// A row of shares for each layer, a column for each expert, `cell` pixels a side; rows may differ in length.
Image load_picture(const std::vector<std::vector<double>>& rows, int cell);

// The greatest cell, up to 24 pixels, with which no side passes 640.
int picture_cell(const std::vector<std::vector<double>>& rows);

}  // namespace switchyard
