// One line per check: relative Frobenius error against the reference, and whether a
// second run gave the same bits.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "benchmarks/cuda_matmul/device.h"

namespace switchyard::bench {

template <class T>
constexpr const char* kTypeName = std::is_same_v<T, double>  ? "f64"
                                  : std::is_same_v<T, float> ? "f32"
                                                             : "bf16";

// Of an output in C from inputs in T.
template <class T, class C>
constexpr double tolerance() {
  if (std::is_same_v<C, BF16>) return 8e-3;
  return std::is_same_v<C, double> ? 1e-12 : 2e-5;
}

template <class C>
double relative_error(const std::vector<C>& out, const std::vector<double>& reference) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double d = to_double(out[i]) - reference[i];
    difference += d * d;
    norm += reference[i] * reference[i];
  }
  if (difference == 0) return 0;
  return norm > 0 ? std::sqrt(difference / norm) : INFINITY;  // NaN stays NaN
}

template <class C>
bool same_bits(const std::vector<C>& a, const std::vector<C>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(C)) == 0);
}

inline int report(const std::string& name, double error, double limit, bool repeated) {
  const bool ok = error <= limit && repeated;
  std::printf("%s %-78s error %.2e%s\n", ok ? "PASS" : "FAIL", name.c_str(), error,
              repeated ? "" : " NOT REPEATED");
  return ok ? 0 : 1;
}

}  // namespace switchyard::bench
