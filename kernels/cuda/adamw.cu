#include "kernels/adamw.h"

#include <algorithm>

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

// What is the same for every parameter, worked out once in double on the host.
template <class A>
struct Rates {
  A keep;  // 1 - lr weight_decay
  A beta1, one_minus_beta1;
  A beta2, one_minus_beta2;
  A step_size;  // lr / (1 - beta1^step)
  A root;       // sqrt(1 - beta2^step)
  A eps;
};

template <class T, class M>
Rates<Acc<T>> rates_of(const AdamW<T, M>& a) {
  using A = Acc<T>;
  const double step = static_cast<double>(a.step);
  return {.keep = static_cast<A>(1 - a.lr * a.weight_decay),
          .beta1 = static_cast<A>(a.beta1),
          .one_minus_beta1 = static_cast<A>(1 - a.beta1),
          .beta2 = static_cast<A>(a.beta2),
          .one_minus_beta2 = static_cast<A>(1 - a.beta2),
          .step_size = static_cast<A>(a.lr / (1 - std::pow(a.beta1, step))),
          .root = static_cast<A>(std::sqrt(1 - std::pow(a.beta2, step))),
          .eps = static_cast<A>(a.eps)};
}

template <int V, class T, class M>
__device__ void update(const AdamW<T, M>& a, const Rates<Acc<T>>& rates, int64_t i) {
  using A = Acc<T>;
  A g[V], m[V], v[V], p[V];
  load<V>(a.grad + i, g);
  load<V>(a.m + i, m);
  load<V>(a.v + i, v);
  if (a.master)
    load<V>(a.master + i, p);
  else
    load<V>(a.p + i, p);
  const A clip = a.clip[0];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const A grad = clip * g[j];
    m[j] = rates.beta1 * m[j] + rates.one_minus_beta1 * grad;
    v[j] = rates.beta2 * v[j] + rates.one_minus_beta2 * grad * grad;
    p[j] = rates.keep * p[j] - rates.step_size * m[j] / (std::sqrt(v[j]) / rates.root + rates.eps);
  }
  store<V>(a.m + i, m);
  store<V>(a.v + i, v);
  if (a.master) store<V>(a.master + i, p);
  store<V>(a.p + i, p);
}

template <int V, class T, class M>
__global__ void adamw_kernel(AdamW<T, M> a, Rates<Acc<T>> rates) {
  const int64_t i = map_index();
  if (i < a.n / V) update<V>(a, rates, i * V);
  if (V > 1 && i < a.n % V) update<1>(a, rates, a.n / V * V + i);
}

}  // namespace

template <class T, class M>
void run(Cuda on, const AdamW<T, M>& a) {
  constexpr int kWidth = std::max(kVector<T>, kVector<M>);  // of the narrower one
  with_width<kWidth>(vectorizable<kWidth>(0, a.p, a.master, a.m, a.v, a.grad), [&](auto v) {
    const int64_t threads = a.n / v > a.n % v ? a.n / v : a.n % v;
    launch_kernel(adamw_kernel<v, T, M>, map_grid(threads), kMapThreads, 0, on.stream, a, rates_of(a));
  });
}

template void run(Cuda, const AdamW<float>&);
template void run(Cuda, const AdamW<float, BF16>&);
template void run(Cuda, const AdamW<BF16>&);
template void run(Cuda, const AdamW<BF16, BF16>&);
template void run(Cuda, const AdamW<double>&);

}  // namespace switchyard::kernels
