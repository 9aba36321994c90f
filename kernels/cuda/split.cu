#include "kernels/split.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kWide = 8;  // elements a thread

// A thread has V neighbours in a row; cols is a multiple of V.
template <int V>
__global__ void split_kernel(Split a) {
  const int64_t i = map_index() * V;
  if (i >= a.rows * a.cols) return;
  const int64_t r = i / a.cols, c = i % a.cols;
  float hi[V], mid[V], lo[V];
  load<V>(a.x + i, hi);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const float x = hi[j];
    hi[j] = rounded<BF16>(x);
    mid[j] = rounded<BF16>(x - hi[j]);
    lo[j] = x - hi[j] - mid[j];
  }
#pragma unroll
  for (int t = 0; t < Split::kTerms; ++t) {
    if (t >= a.terms) return;
    BF16* y = a.y + (r * a.terms + t) * a.cols + c;
    if (a.part[t] == Part::kHi) store<V>(y, hi);
    if (a.part[t] == Part::kMid) store<V>(y, mid);
    if (a.part[t] == Part::kLo) store<V>(y, lo);
  }
}

template <int V>
__global__ void sum_kernel(SumParts a) {
  const int64_t i = map_index() * V;
  if (i >= a.rows * a.cols) return;
  const float* parts = a.x + i / a.cols * 3 * a.cols + i % a.cols;
  float hi[V], mid[V], lo[V], y[V] = {};
  load<V>(parts, hi);
  load<V>(parts + a.cols, mid);
  load<V>(parts + 2 * a.cols, lo);
  if (a.accumulate) load<V>(a.y + i, y);
#pragma unroll
  for (int j = 0; j < V; ++j) y[j] += (lo[j] + mid[j]) + hi[j];
  store<V>(a.y + i, y);
}

}  // namespace

void run(Cuda on, const Split& a) {
  with_width<kWide>(vectorizable<kWide>(a.cols, a.y, a.x), [&](auto v) {
    launch_kernel(split_kernel<v>, map_grid(a.rows * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

void run(Cuda on, const SumParts& a) {
  constexpr int V = kVector<float>;
  with_width<V>(vectorizable<V>(a.cols, a.y, a.x), [&](auto v) {
    launch_kernel(sum_kernel<v>, map_grid(a.rows * a.cols / v), kMapThreads, 0, on.stream, a);
  });
}

}  // namespace switchyard::kernels
