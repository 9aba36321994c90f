#include "kernels/gate_noise.h"

#include "kernels/cpu/loops.h"
#include "kernels/cpu/simd_math.h"

namespace switchyard::kernels {
namespace {

// max(s, 0) + log(1 + e^-|s|): no exponential of a large number.
template <class A>
[[gnu::always_inline]] inline A softplus(A s) {
  const A high = s > 0 ? s : A(0), size = s > 0 ? s : -s;
  return high + fast_log(1 + fast_exp(-size));
}

}  // namespace

template <class A>
void run(Cpu, const GateNoiseForward<A>& a) {
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    A* y = a.y;
    const A *logits = a.logits, *spread = a.spread, *noise = a.noise;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = logits[i] + noise[i] * softplus(spread[i]);
  });
}

template <class A>
void run(Cpu, const GateNoiseBackward<A>& a) {
  for_chunks(a.n, [=](int64_t begin, int64_t end) {
    A* dspread = a.dspread;
    const A *dy = a.dy, *spread = a.spread, *noise = a.noise;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) dspread[i] = dy[i] * noise[i] * sigmoid(spread[i]);
  });
}

#define SWITCHYARD_INSTANTIATE(A)                     \
  template void run(Cpu, const GateNoiseForward<A>&); \
  template void run(Cpu, const GateNoiseBackward<A>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
