// Random inputs and comparisons for the kernels that compute in double what they are tested against.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/dtype.h"

namespace switchyard::kernels {

template <class T>
std::vector<T> random_values(int64_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> distribution(-1, 1);
  std::vector<T> values(static_cast<size_t>(n));
  for (T& v : values) v = static_cast<T>(distribution(engine));
  return values;
}

inline double to_double(BF16 x) { return static_cast<double>(static_cast<float>(x)); }
inline double to_double(double x) { return x; }

// Relative to the largest value expected. bf16 results are rounded once, to 8 bits.
template <class T>
constexpr double kTolerance = std::is_same_v<T, double>  ? 1e-12
                              : std::is_same_v<T, float> ? 1e-5
                                                         : 1.0 / 256;

template <class T>
void expect_close(const std::vector<T>& actual, const std::vector<double>& expected,
                  double tolerance = kTolerance<T>) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 1e-30;
  for (double x : expected) largest = std::max(largest, std::abs(x));
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(to_double(actual[i]), expected[i], tolerance * largest) << "element " << i;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace switchyard::kernels
