#include "kernels/norm_rope.h"

#include <cmath>

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/loops.h"

namespace switchyard::kernels {
namespace {

template <class T>
struct Angles {
  const Acc<T>* cos;  // [half]
  const Acc<T>* sin;
  int64_t half;  // rotary_dim / 2
};

// y = rotate(x * rstd * w), or rotate(x) without the norm; d components.
template <bool kNorm, class T>
void forward_head(T* y, const T* x, const T* w, Acc<T> rstd, const Angles<T>& at, int64_t d) {
  using A = Acc<T>;
  const int64_t half = at.half;
  const auto normed = [=](int64_t i) __attribute__((always_inline)) {
    if constexpr (kNorm)
      return static_cast<A>(x[i]) * rstd * static_cast<A>(w[i]);
    else
      return static_cast<A>(x[i]);
  };
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const A a = normed(i), b = normed(i + half);
    store(y[i], a * at.cos[i] - b * at.sin[i]);
    store(y[i + half], b * at.cos[i] + a * at.sin[i]);
  }
#pragma omp simd
  for (int64_t i = 2 * half; i < d; ++i) store(y[i], normed(i));
}

// dn = the rotation's transpose (angle -> -angle) of dy
template <class T>
void unrotate(Acc<T>* dn, const T* dy, const Angles<T>& at, int64_t d) {
  using A = Acc<T>;
  const int64_t half = at.half;
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const A a = static_cast<A>(dy[i]), b = static_cast<A>(dy[i + half]);
    dn[i] = a * at.cos[i] + b * at.sin[i];
    dn[i + half] = b * at.cos[i] - a * at.sin[i];
  }
#pragma omp simd
  for (int64_t i = 2 * half; i < d; ++i) dn[i] = static_cast<A>(dy[i]);
}

// dx of n = x * rstd * w from dn, as in kernels/rms_norm.h; the share of dw is added to dw.
template <class T>
void norm_backward(T* dx, Acc<T>* dw, const Acc<T>* dn, const T* x, const T* w, Acc<T> rstd, int64_t d) {
  using A = Acc<T>;
  const A product = dot3(dn, x, w, d);
#pragma omp simd
  for (int64_t i = 0; i < d; ++i) dw[i] += dn[i] * static_cast<A>(x[i]) * rstd;
  const A pull = rstd * rstd * product / static_cast<A>(d);
#pragma omp simd
  for (int64_t i = 0; i < d; ++i)
    store(dx[i], rstd * (dn[i] * static_cast<A>(w[i]) - static_cast<A>(x[i]) * pull));
}

template <class Args>
auto angles_of(const Args& a, int64_t token) {
  const int64_t half = a.rotary_dim / 2, position = token % a.seq;
  return Angles<std::remove_cvref_t<decltype(*a.x)>>{a.cos + position * half, a.sin + position * half, half};
}

template <class T>
void forward_token(const NormRopeForward<T>& a, int64_t t) {
  using A = Acc<T>;
  const int64_t d = a.head_dim, rotated = a.heads + a.kv_heads;
  const auto at = angles_of(a, t);
  const T* x = a.x + t * (rotated + a.kv_heads) * d;
  T* y = a.y + t * (rotated + a.kv_heads) * d;
  for (int64_t h = 0; h < rotated; ++h, x += d, y += d) {
    const T* w = h < a.heads ? a.q_weight : a.k_weight;
    if (!w) {
      forward_head<false>(y, x, w, A(1), at, d);
      continue;
    }
    const A rstd = 1 / std::sqrt(dot(x, x, d) / static_cast<A>(d) + a.eps);
    a.rstd[t * rotated + h] = rstd;
    forward_head<true>(y, x, w, rstd, at, d);
  }
  if (y != x) std::copy_n(x, a.kv_heads * d, y);
}

// dw: [2, head_dim], the queries' and the keys' sums of this token's block.
template <class T>
void backward_token(const NormRopeBackward<T>& a, int64_t t, Acc<T>* dw) {
  using A = Acc<T>;
  const int64_t d = a.head_dim, rotated = a.heads + a.kv_heads;
  const auto at = angles_of(a, t);
  const int64_t row = t * (rotated + a.kv_heads) * d;
  const T* dy = a.dy + row;
  T* dx = a.dx + row;
  alignas(64) A dn[kMaxHeadDim];
  for (int64_t h = 0; h < rotated; ++h, dy += d, dx += d) {
    const bool query = h < a.heads;
    const T* w = query ? a.q_weight : a.k_weight;
    unrotate(dn, dy, at, d);
    if (w) {
      norm_backward(dx, query ? dw : dw + d, dn, a.x + row + h * d, w, a.rstd[t * rotated + h], d);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < d; ++i) store(dx[i], dn[i]);
    }
  }
  if (dx != dy) std::copy_n(dy, a.kv_heads * d, dx);
}

}  // namespace

template <class T>
void run(Cpu, const NormRopeForward<T>& a) {
  const int64_t cols = (a.heads + 2 * a.kv_heads) * a.head_dim;
  for_rows(a.tokens, cols, [=](int64_t t) { forward_token(a, t); });
}

template <class T>
void run(Cpu, const NormRopeBackward<T>& a) {
  using A = Acc<T>;
  CHECK(a.head_dim <= kMaxHeadDim, "head_dim: ", a.head_dim);
  const bool norm = a.q_weight || a.k_weight;
  const int64_t blocks = std::min(a.kBlocks, a.tokens), d = a.head_dim;
  const int64_t work = a.tokens * (a.heads + 2 * a.kv_heads) * d;
  for_blocks(blocks, a.tokens, work, [=](int64_t b, int64_t begin, int64_t end) {
    alignas(64) A dw[2 * kMaxHeadDim];
    std::fill_n(dw, 2 * d, A(0));
    for (int64_t t = begin; t < end; ++t) backward_token(a, t, dw);
    // The workspace is [2, kBlocks, d] here, so that each weight's parts lie together.
    if (norm) std::copy_n(dw, d, a.workspace + b * d);
    if (norm) std::copy_n(dw + d, d, a.workspace + (a.kBlocks + b) * d);
  });
  if (a.q_weight) add_blocks(a.dq_weight, a.workspace, blocks, d);
  if (a.k_weight) add_blocks(a.dk_weight, a.workspace + a.kBlocks * d, blocks, d);
}

#define SWITCHYARD_INSTANTIATE(T)                    \
  template void run(Cpu, const NormRopeForward<T>&); \
  template void run(Cpu, const NormRopeBackward<T>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
