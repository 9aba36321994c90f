#include "kernels/adamw.h"

#include <cmath>

#include "kernels/cpu/loops.h"

namespace switchyard::kernels {

// The constants are formed in double and rounded once, and every element goes through PyTorch's operations in
// PyTorch's order: a lerp for m, then v, the denominator, and the step, fused multiply-adds where PyTorch has
// them and nowhere else (this file is compiled with -ffp-contract=off).
template <class T>
void run(Cpu, const AdamW<T>& a) {
  using A = Acc<T>;
  if (a.n == 0) return;
  const double correction1 = 1 - std::pow(a.beta1, static_cast<double>(a.step));
  const double correction2 = 1 - std::pow(a.beta2, static_cast<double>(a.step));
  const A clip = *a.clip, keep = static_cast<A>(1 - a.lr * a.weight_decay), eps = static_cast<A>(a.eps);
  const A mix1 = static_cast<A>(1 - a.beta1), beta2 = static_cast<A>(a.beta2),
          mix2 = static_cast<A>(1 - a.beta2);
  const A root = static_cast<A>(std::sqrt(correction2)), step = static_cast<A>(a.lr / correction1);
  // lerp(m, g, w) is m + w (g - m), or g - (1 - w)(g - m) from w = 1/2 on.
  const bool near = std::abs(mix1) < A(0.5);
  const A slope = near ? mix1 : mix1 - 1;
  const auto update = [=](int64_t begin, int64_t end) {
    A *master = a.master, *m = a.m, *v = a.v;
    if constexpr (std::is_same_v<T, A>) master = a.p;
    const A* grad = a.grad;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const A g = clip * grad[i];
      const A decayed = master[i] * keep;
      const A first = std::fma(slope, g - m[i], near ? m[i] : g);
      const A second = std::fma(mix2 * g, g, v[i] * beta2);
      const A denominator = std::sqrt(second) / root + eps;
      m[i] = first;
      v[i] = second;
      master[i] = decayed - step * first / denominator;
    }
    if constexpr (std::is_same_v<T, A>) return;
    // A loop of its own, while the block is in the cache: in one with the other, GCC
    // makes vector code of neither.
    T* p = a.p;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) store(p[i], master[i]);
  };
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    constexpr int64_t kBlock = 512;  // of five arrays, in the first-level cache
    for (int64_t i = begin; i < end; i += kBlock) update(i, std::min(i + kBlock, end));
  });
}

template void run(Cpu, const AdamW<float>&);
template void run(Cpu, const AdamW<BF16>&);
template void run(Cpu, const AdamW<double>&);

}  // namespace switchyard::kernels
