// SwiGLU of one element: where it has a pass of its own, and at the end of the product before it.
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

}  // namespace switchyard::kernels
