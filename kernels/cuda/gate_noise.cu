#include "kernels/gate_noise.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

// softplus(s) = max(s, 0) + log(1 + e^-|s|): no exponential of a large number.
template <class A>
__global__ void forward_kernel(GateNoiseForward<A> a) {
  const int64_t i = map_index();
  if (i >= a.n) return;
  const A s = a.spread[i], high = s > 0 ? s : A{0}, size = s > 0 ? s : -s;
  a.y[i] = a.logits[i] + a.noise[i] * (high + std::log(A{1} + std::exp(-size)));
}

template <class A>
__global__ void backward_kernel(GateNoiseBackward<A> a) {
  const int64_t i = map_index();
  if (i >= a.n) return;
  a.dspread[i] = a.dy[i] * a.noise[i] / (A{1} + std::exp(-a.spread[i]));
}

}  // namespace

template <class A>
void run(Cuda on, const GateNoiseForward<A>& a) {
  launch_kernel(forward_kernel<A>, map_grid(a.n), kMapThreads, 0, on.stream, a);
}

template <class A>
void run(Cuda on, const GateNoiseBackward<A>& a) {
  launch_kernel(backward_kernel<A>, map_grid(a.n), kMapThreads, 0, on.stream, a);
}

#define SWITCHYARD_INSTANTIATE(A)                      \
  template void run(Cuda, const GateNoiseForward<A>&); \
  template void run(Cuda, const GateNoiseBackward<A>&);

SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
