// Noisy gating (Shazeer et al., arXiv 1701.06538), all in A = float (double in gradient checks):
//
//   y = logits + noise * softplus(spread)     softplus(s) = log(1 + e^s)
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

template <class A>
struct GateNoiseForward {
  A* y;  // [n], may be logits
  const A* logits;
  const A* spread;
  const A* noise;  // standard normal
  int64_t n;
};

// dlogits = dy,   dspread = dy * noise * sigmoid(spread)
template <class A>
struct GateNoiseBackward {
  A* dspread;
  const A* dy;
  const A* spread;
  const A* noise;
  int64_t n;
};

// Instantiated for float, double.
template <class A>
void run(Cpu, const GateNoiseForward<A>&);
template <class A>
void run(Cuda, const GateNoiseForward<A>&);
template <class A>
void run(Cpu, const GateNoiseBackward<A>&);
template <class A>
void run(Cuda, const GateNoiseBackward<A>&);

}  // namespace switchyard::kernels
