#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/handles.h"
#include "kernels/cuda/prefetch.cuh"
#include "kernels/half_logits.h"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 512, kBlocks = 2, kAhead = 4, kWidth = 8;  // vectors of eight logits, 16 bytes
constexpr int64_t kMostKept = 200 << 10;                            // bytes of a row that a block keeps

union Vector {
  uint4 word;
  F16 logit[kWidth];
  BF16 gradient[kWidth];
  __device__ Vector() {}
};

// Columns that do not exist weigh nothing.
__device__ inline void mask_tail(Vector& v, int64_t columns) {
  constexpr uint16_t kMinusInfinity = 0xfc00;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    if (j >= columns) v.logit[j].bits = kMinusInfinity;
  }
}

// Largest logit and sum of exponentials below it, of what a thread has seen.
struct Running {
  float top = -INFINITY, sum = 0;
  __device__ void add(const Vector& v) {
    float x[kWidth], next = top;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      x[j] = static_cast<float>(v.logit[j]);
      next = x[j] > next ? x[j] : next;
    }
    const float base = next == -INFINITY ? 0 : next;
    sum *= __expf(top - base);
    top = next;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum += __expf(x[j] - base);
  }
};

__device__ inline void store_gradient(uint4* out, Vector v, int64_t target, float top, float share,
                                      float scale) {
  float g[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) g[j] = __expf(static_cast<float>(v.logit[j]) - top) * share;
  if (target >= 0 && target < kWidth) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) g[j] -= j == target ? scale : 0.0f;
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) v.gradient[j] = narrow<BF16>(g[j]);
  *out = v.word;
}

// A block a row. kKept: the row stays in shared memory between the softmax's sum and the gradient; a longer
// one is read again. While a block computes, the row `rows_ahead` of its own comes into the L2 cache: it is
// that of the block which will take its place.
template <bool kKept>
__global__ void __launch_bounds__(kThreads, kBlocks)
    half_cross_entropy_kernel(HalfCrossEntropy a, int vectors, int64_t rows_ahead) {
  const int64_t row = blockIdx.x;
  const F16* logits = a.logits + row * vectors * kWidth;
  const uint4* z = reinterpret_cast<const uint4*>(logits);
  uint4* dz = a.dlogits ? reinterpret_cast<uint4*>(a.dlogits) + row * vectors : nullptr;
  uint4* kept = reinterpret_cast<uint4*>(dynamic_shared());
  const int32_t target = a.target[row];
  if (target < 0) {
    if (threadIdx.x == 0) a.loss[row] = 0;
    for (int v = threadIdx.x; dz && v < vectors; v += kThreads) dz[v] = uint4{0, 0, 0, 0};
    return;
  }
  const float picked = static_cast<float>(logits[target]);  // now: dlogits may be the same memory

  Running running;
  for (int first = threadIdx.x; first < vectors; first += kThreads * kAhead) {
    Vector ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (first + i * kThreads < vectors) ahead[i].word = z[first + i * kThreads];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int v = first + i * kThreads;
      if (v >= vectors) continue;
      if (v == vectors - 1) mask_tail(ahead[i], a.vocab - int64_t{v} * kWidth);
      if (kKept) kept[v] = ahead[i].word;
      running.add(ahead[i]);
    }
  }
  if (threadIdx.x == 0 && row + rows_ahead < a.rows)
    prefetch_row(logits + rows_ahead * vectors * kWidth, vectors * static_cast<int>(sizeof(Vector)));
  const float top = team_reduce(running.top, Max{});
  const float sum = team_reduce(running.sum * __expf(running.top - top));
  if (threadIdx.x == 0) a.loss[row] = std::log(sum) + (top - picked);
  if (!dz) return;

  const float share = a.scale / sum;
#pragma unroll 2
  for (int v = threadIdx.x; v < vectors; v += kThreads) {  // each thread what it has kept itself
    Vector own;
    own.word = kKept ? kept[v] : z[v];
    if (!kKept && v == vectors - 1) mask_tail(own, a.vocab - int64_t{v} * kWidth);
    store_gradient(dz + v, own, target - int64_t{v} * kWidth, top, share, a.scale);
  }
}

}  // namespace

void run(Cuda on, const HalfCrossEntropy& a) {
  const int64_t vectors = half_logits_stride(a.vocab) / kWidth, bytes = vectors * 16;
  constexpr int64_t kReductions = 1 << 10;  // bytes
  const int64_t most = on.handles ? std::min(kMostKept, on.handles->shared_bytes - kReductions) : kMostKept;
  const bool kept = bytes <= most;
  const int64_t rows_ahead = on.handles ? kBlocks * on.handles->multiprocessors : a.rows;
  const auto kernel = kept ? half_cross_entropy_kernel<true> : half_cross_entropy_kernel<false>;
  launch_kernel(kernel, grid_of(a.rows), kThreads, kept ? bytes : 0, on.stream, a, static_cast<int>(vectors),
                rows_ahead);
}

}  // namespace switchyard::kernels
