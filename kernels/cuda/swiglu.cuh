// SwiGLU of one element: where it has a pass of its own, and at the end of the products around it.
#pragma once

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {

// 1 / (1 + exp(-g)). What bf16 will round needs no exact quotient.
template <class T>
__device__ Acc<T> sigmoid_for(Acc<T> g) {
  if constexpr (std::is_same_v<T, BF16>) {
    return __fdividef(1.0f, 1.0f + __expf(-g));
  } else {
    return Acc<T>{1} / (Acc<T>{1} + std::exp(-g));
  }
}

template <class T>
__device__ Acc<T> swiglu_of(Acc<T> gate, Acc<T> up) {
  return gate * sigmoid_for<T>(gate) * up;
}

// gate and up become their gradients.   s = sigmoid(g):   dg = dy u s (1 + g (1 - s)),   du = dy g s
template <class T>
__device__ void swiglu_gradient_of(Acc<T> dy, Acc<T>& gate, Acc<T>& up) {
  const Acc<T> s = sigmoid_for<T>(gate), dg = dy * up * s * (Acc<T>{1} + gate * (Acc<T>{1} - s));
  up = dy * gate * s;
  gate = dg;
}

}  // namespace switchyard::kernels
