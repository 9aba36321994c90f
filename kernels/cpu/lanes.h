// Sixteen numbers side by side, for sums over short rows. An `omp simd` reduction ends with one addition
// after the other, and in bf16 it takes 32 elements at a time: over a head's 64 that is most of its time.
#pragma once

#include <cstring>

#include "kernels/dtype.h"

namespace switchyard::kernels {

inline constexpr int64_t kLanes = 16;

template <class A>
struct LanesOf {};
template <>
struct LanesOf<float> {
  typedef float type __attribute__((vector_size(kLanes * sizeof(float))));
};
template <>
struct LanesOf<double> {
  typedef double type __attribute__((vector_size(kLanes * sizeof(double))));
};
template <class A>
using Lanes = typename LanesOf<A>::type;

// to = x[0, kLanes)
template <class A>
[[gnu::always_inline]] inline void load_lanes(Lanes<A>& to, const A* x) {
  std::memcpy(&to, x, sizeof(to));
}
[[gnu::always_inline]] inline void load_lanes(Lanes<float>& to, const BF16* x) {
  using Halves = uint16_t __attribute__((vector_size(kLanes * 2)));
  using Words = uint32_t __attribute__((vector_size(kLanes * 4)));
  Halves bits;
  std::memcpy(&bits, x, sizeof(bits));
  to = reinterpret_cast<Lanes<float>>(__builtin_convertvector(bits, Words) << 16);
}

// By halves: lane i and i + 8, then i and i + 4, ...
template <class A>
[[gnu::always_inline]] inline A sum_of_lanes(const Lanes<A>& x) {
  A part[kLanes];
  std::memcpy(part, &x, sizeof(part));
#pragma GCC unroll 4
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
#pragma GCC unroll 8
    for (int64_t i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

// sum of x[i] * y[i]. Four sums in flight hide the latency of an addition.
template <class T>
Acc<T> dot(const T* x, const T* y, int64_t n) {
  using A = Acc<T>;
  Lanes<A> sum[4] = {}, a, b;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int64_t q = 0; q < 4; ++q) {
      load_lanes(a, x + i + q * kLanes);
      load_lanes(b, y + i + q * kLanes);
      sum[q] += a * b;
    }
  for (; i + kLanes <= n; i += kLanes) {
    load_lanes(a, x + i);
    load_lanes(b, y + i);
    sum[0] += a * b;
  }
  A rest = 0;
  for (; i < n; ++i) rest += static_cast<A>(x[i]) * static_cast<A>(y[i]);
  sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  return sum_of_lanes<A>(sum[0]) + rest;
}

// sum of x[i] * y[i] * z[i]
template <class T>
Acc<T> dot3(const Acc<T>* x, const T* y, const T* z, int64_t n) {
  using A = Acc<T>;
  Lanes<A> sum = {}, a, b, c;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load_lanes(a, x + i);
    load_lanes(b, y + i);
    load_lanes(c, z + i);
    sum += a * b * c;
  }
  A rest = 0;
  for (; i < n; ++i) rest += x[i] * static_cast<A>(y[i]) * static_cast<A>(z[i]);
  return sum_of_lanes<A>(sum) + rest;
}

}  // namespace switchyard::kernels
