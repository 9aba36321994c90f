#include "kernels/adamw.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/adamw_update.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/panels.h"

namespace switchyard::kernels {

namespace {

constexpr int64_t kBlock = 512;  // elements of all arrays, in the first-level cache
// Elements whose masters and moments fill the third-level cache: nothing of the parameters would be left
// there when the next step reads them. Past the cache, memory does not bring first what is overwritten.
constexpr int64_t kStreamFrom = 1 << 20;

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

// n values that begin with a line and fill lines.
void stream_lines(BF16* to, const BF16* from, int64_t n) {
  constexpr int64_t kStep = sizeof(Vector) / sizeof(BF16);
  for (int64_t i = 0; i < n; i += kStep) {
    Vector bits;
    std::memcpy(&bits, from + i, sizeof bits);
    stream(reinterpret_cast<float*>(to + i), bits);
  }
}

}  // namespace

// The constants are formed in double and rounded once, and every element goes through PyTorch's operations in
// PyTorch's order: a lerp for m, then v, the denominator, and the step, fused multiply-adds where PyTorch has
// them and nowhere else (this file is compiled with -ffp-contract=off).
template <class T, class M>
AdamWUpdate<T, M>::AdamWUpdate(const AdamW<T, M>& a, bool may_stream)
    : p_(a.p), master_(a.master), m_(a.m), v_(a.v) {
  const double correction1 = 1 - std::pow(a.beta1, static_cast<double>(a.step));
  const double correction2 = 1 - std::pow(a.beta2, static_cast<double>(a.step));
  const A mix1 = static_cast<A>(1 - a.beta1);
  near_ = std::abs(mix1) < A(0.5);
  slope_ = near_ ? mix1 : mix1 - 1;
  clip_ = *a.clip, keep_ = static_cast<A>(1 - a.lr * a.weight_decay), eps_ = static_cast<A>(a.eps);
  beta2_ = static_cast<A>(a.beta2), mix2_ = static_cast<A>(1 - a.beta2);
  root_ = static_cast<A>(std::sqrt(correction2)), step_ = static_cast<A>(a.lr / correction1);
  streams_ = may_stream && kHasStreaming && std::is_same_v<T, BF16> && a.n >= kStreamFrom;
}

// p = the rounded master, of at most a block.
template <class T, class M>
void AdamWUpdate<T, M>::round_parameters(int64_t begin, int64_t n) const {
  T* const p = p_ + begin;
  const A* const master = master_ + begin;
  if constexpr (std::is_same_v<T, BF16>) {
    constexpr int64_t kLine = 64 / sizeof(BF16);
    if (streams_ && reinterpret_cast<uintptr_t>(p) % 64 == 0 && n % kLine == 0) {
      alignas(64) BF16 rounded[kBlock];
      round_to(rounded, master, n);
      return stream_lines(p, rounded, n);
    }
  }
  round_to(p, master, n);
}

template <class T, class M>
void AdamWUpdate<T, M>::update_block(int64_t begin, int64_t n, const A* grad) const {
  constexpr bool kWideParameters = std::is_same_v<T, A>, kWideMoments = std::is_same_v<M, A>;
  const AdamWUpdate u = *this;  // which no store below can change
  A* master = u.master_ + begin;
  if constexpr (kWideParameters) master = u.p_ + begin;
  [[maybe_unused]] A wide[2][kBlock];
  A *m = wide[0], *v = wide[1];
  if constexpr (kWideMoments) {
    m = u.m_ + begin, v = u.v_ + begin;
  } else {
    widen(m, u.m_ + begin, n);
    widen(v, u.v_ + begin, n);
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A g = u.clip_ * grad[i];
    const A decayed = master[i] * u.keep_;
    const A first = std::fma(u.slope_, g - m[i], u.near_ ? m[i] : g);
    const A second = std::fma(u.mix2_ * g, g, v[i] * u.beta2_);
    const A denominator = std::sqrt(second) / u.root_ + u.eps_;
    m[i] = first;
    v[i] = second;
    master[i] = decayed - u.step_ * first / denominator;
  }
  if constexpr (!kWideMoments) {
    round_to(u.m_ + begin, m, n);
    round_to(u.v_ + begin, v, n);
  }
  if constexpr (!kWideParameters) u.round_parameters(begin, n);
}

template <class T, class M>
void AdamWUpdate<T, M>::operator()(int64_t begin, int64_t n, const A* grad) const {
  for (int64_t i = 0; i < n; i += kBlock) update_block(begin + i, std::min(kBlock, n - i), grad + i);
}

template <class T, class M>
void AdamWUpdate<T, M>::finish() const {
  if (streams_) finish_streaming();
}

template <class T, class M>
void run(Cpu, const AdamW<T, M>& a) {
  if (a.n == 0) return;
  const AdamWUpdate<T, M> update(a, true);
  for_chunks(a.n, [&](int64_t begin, int64_t end) {
    update(begin, end - begin, a.grad + begin);
    update.finish();
  });
}

template class AdamWUpdate<float, float>;
template class AdamWUpdate<float, BF16>;
template class AdamWUpdate<BF16, float>;
template class AdamWUpdate<BF16, BF16>;
template void run(Cpu, const AdamW<float>&);
template void run(Cpu, const AdamW<float, BF16>&);
template void run(Cpu, const AdamW<BF16>&);
template void run(Cpu, const AdamW<BF16, BF16>&);
template void run(Cpu, const AdamW<double>&);

}  // namespace switchyard::kernels
