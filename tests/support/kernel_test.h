// What the kernels' tests share beside random values: threads, finite differences.
#pragma once

#include <omp.h>

#include <vector>

#include "tests/kernels/values.h"

namespace switchyard::kernels {

// f() with `threads` OpenMP threads.
template <class F>
auto with_threads(int threads, F f) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  auto result = f();
  omp_set_num_threads(before);
  return result;
}

template <class T>
std::vector<double> doubles(const std::vector<T>& values) {
  std::vector<double> result;
  for (T v : values) result.push_back(to_double(v));
  return result;
}

// d f(x) / d x[i] by central differences; f returns a double and reads x by reference.
template <class F>
std::vector<double> numeric_gradient(std::vector<double>& x, F f) {
  constexpr double kStep = 1e-5;
  std::vector<double> gradient;
  for (double& value : x) {
    const double before = value;
    value = before + kStep;
    const double up = f();
    value = before - kStep;
    const double down = f();
    value = before;
    gradient.push_back((up - down) / (2 * kStep));
  }
  return gradient;
}

inline double dot_of(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// A central difference with the step above is good to about this much.
inline constexpr double kNumericTolerance = 1e-7;

}  // namespace switchyard::kernels
