// Loads of experts as HTML: 1 is an even share, the colours are those of load_color().
#pragma once

#include <string>
#include <vector>

namespace switchyard {

using Rows = std::vector<std::vector<double>>;

// A labelled row of shares each. Up to 16 columns are cells with their numbers; more are a picture.
std::string heat_table(const std::string& title, const std::vector<std::string>& labels, const Rows& rows);

// Time to the right, experts downwards: `means` [stretch of time][expert], a stretch without a step empty.
std::string heat_over_time(const std::string& title, const Rows& means, const std::string& first,
                           const std::string& last);

// Opens a <div> in which tables of that many columns stand side by side where there is room.
std::string heat_grid(size_t columns);

// What the colours mean.
std::string heat_legend();

}  // namespace switchyard
