// Row statistics that the router, its losses and the cross-entropy share.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/simd_math.h"

namespace switchyard::kernels {

// log sum e^z in one visit: chunk by chunk (so that the second look finds it in the cache), with the running
// maximum taken out and the sum so far rescaled when it grows.
template <class A>
A logsumexp(const A* z, int64_t n) {
  constexpr int64_t kChunk = 1024;
  A top = -std::numeric_limits<A>::infinity(), sum = 0;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const A* part = z + begin;
    const int64_t count = std::min(kChunk, n - begin);
    A chunk_top = top, chunk_sum = 0;
#pragma omp simd reduction(max : chunk_top)
    for (int64_t i = 0; i < count; ++i) chunk_top = part[i] > chunk_top ? part[i] : chunk_top;
#pragma omp simd reduction(+ : chunk_sum)
    for (int64_t i = 0; i < count; ++i) chunk_sum += fast_exp(part[i] - chunk_top);
    if (begin > 0) sum *= fast_exp(top - chunk_top);
    sum += chunk_sum;
    top = chunk_top;
  }
  return top + std::log(sum);
}

template <class A>
A sum_of_row(const A* x, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

// s = softmax(z); one row.
template <class A>
void softmax_row(A* s, const A* z, int64_t n) {
  A top = -std::numeric_limits<A>::infinity(), sum = 0;
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < n; ++i) top = z[i] > top ? z[i] : top;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const A e = fast_exp(z[i] - top);
    s[i] = e;
    sum += e;
  }
  const A inverse = 1 / sum;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) s[i] *= inverse;
}

}  // namespace switchyard::kernels
