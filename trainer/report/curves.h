// From thousands of steps to what a screen can show.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

struct Curve {
  std::vector<double> x, y;  // equally long; x rises; y may be NaN
};

// Without the points that have no y.
Curve finite(const std::vector<double>& x, const std::vector<double>& y);

// Mean over a window of points around each, up to `half` on either side: fewer, but as many on both sides, at
// the start, where curves are steep, and fewer on the right at the end.
Curve smoothed(const Curve& curve, size_t half);

// At most two points for each of `columns` equal parts of x, the least and the greatest y in it, so that no
// spike is lost. A curve of few points stays as it is.
Curve extremes(const Curve& curve, size_t columns);

// At most one point for each part: the mean.
Curve means(const Curve& curve, size_t columns);

// The value that `fraction` of the values do not pass.
double quantile(std::vector<double> values, double fraction);

// Values from `low` to `high`, both passed at most by one tick: multiples of 1, 2 or 5 times a power of ten,
// about `count` of them.
std::vector<double> nice_ticks(double low, double high, int count);

// "0.0003", "3e-5", "12.5k", "1.2M"
std::string short_number(double value);

}  // namespace switchyard
