#include "kernels/cross_entropy.h"

#include <limits>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd_math.h"

namespace switchyard::kernels {
namespace {

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

}  // namespace

template <class T>
void run(Cpu, const CrossEntropy<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.vocab, [=](int64_t r) {
    const A* z = a.logits + r * a.vocab;
    T* dz = a.dlogits ? a.dlogits + r * a.vocab : nullptr;
    const int32_t target = a.target[r];
    if (target < 0) {
      a.loss[r] = 0;
      if (dz) std::fill_n(dz, a.vocab, T{});
      return;
    }
    const A lse = logsumexp(z, a.vocab), scale = a.scale;
    const A target_logit = z[target];
    a.loss[r] = lse - target_logit;
    if (!dz) return;
#pragma omp simd
    for (int64_t c = 0; c < a.vocab; ++c) store(dz[c], scale * fast_exp(z[c] - lse));
    store(dz[target], scale * (fast_exp(target_logit - lse) - 1));
  });
}

template void run(Cpu, const CrossEntropy<float>&);
template void run(Cpu, const CrossEntropy<BF16>&);
template void run(Cpu, const CrossEntropy<double>&);

}  // namespace switchyard::kernels
