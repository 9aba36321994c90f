#include "kernels/adamw.h"

#include <cmath>

#include "kernels/cpu/loops.h"

namespace switchyard::kernels {

namespace {

constexpr int64_t kBlock = 512;  // elements of all arrays, in the first-level cache

// Both are loops of their own, while the block is in the cache: in one with the update, GCC makes vector code
// of neither.
template <class From>
void widen(Acc<From>* to, const From* from, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<Acc<From>>(from[i]);
}

template <class To>
void round_to(To* to, const Acc<To>* from, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
}

}  // namespace

// The constants are formed in double and rounded once, and every element goes through PyTorch's operations in
// PyTorch's order: a lerp for m, then v, the denominator, and the step, fused multiply-adds where PyTorch has
// them and nowhere else (this file is compiled with -ffp-contract=off).
template <class T, class M>
void run(Cpu, const AdamW<T, M>& a) {
  using A = Acc<T>;
  constexpr bool kWideParameters = std::is_same_v<T, A>, kWideMoments = std::is_same_v<M, A>;
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
  const auto update = [=](int64_t begin, int64_t n) {
    A* master = a.master + begin;
    if constexpr (kWideParameters) master = a.p + begin;
    const A* grad = a.grad + begin;
    [[maybe_unused]] A wide[2][kBlock];
    A *m = wide[0], *v = wide[1];
    if constexpr (kWideMoments) {
      m = a.m + begin, v = a.v + begin;
    } else {
      widen(m, a.m + begin, n);
      widen(v, a.v + begin, n);
    }
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const A g = clip * grad[i];
      const A decayed = master[i] * keep;
      const A first = std::fma(slope, g - m[i], near ? m[i] : g);
      const A second = std::fma(mix2 * g, g, v[i] * beta2);
      const A denominator = std::sqrt(second) / root + eps;
      m[i] = first;
      v[i] = second;
      master[i] = decayed - step * first / denominator;
    }
    if constexpr (!kWideMoments) {
      round_to(a.m + begin, m, n);
      round_to(a.v + begin, v, n);
    }
    if constexpr (!kWideParameters) round_to(a.p + begin, master, n);
  };
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kBlock) update(i, std::min(kBlock, end - i));
  });
}

template void run(Cpu, const AdamW<float>&);
template void run(Cpu, const AdamW<float, BF16>&);
template void run(Cpu, const AdamW<BF16>&);
template void run(Cpu, const AdamW<BF16, BF16>&);
template void run(Cpu, const AdamW<double>&);

}  // namespace switchyard::kernels
