// SwiGLU:   y = silu(gate) * up,   silu(g) = g / (1 + exp(-g)).   A row of x is gate | up, cols each.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

template <class T>
struct SwigluForward {
  T* y;        // [rows, cols]
  const T* x;  // [rows, 2 cols]
  int64_t rows, cols;
};

template <class T>
struct SwigluBackward {
  T* dx;        // [rows, 2 cols]
  const T* dy;  // [rows, cols]
  const T* x;   // [rows, 2 cols]
  int64_t rows, cols;
};

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const SwigluForward<T>&);
template <class T>
void run(Cuda, const SwigluForward<T>&);
template <class T>
void run(Cpu, const SwigluBackward<T>&);
template <class T>
void run(Cuda, const SwigluBackward<T>&);

}  // namespace switchyard::kernels
