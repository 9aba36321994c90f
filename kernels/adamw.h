// AdamW (Loshchilov and Hutter, arXiv 1711.05101) exactly as PyTorch's, on one flat run of parameters:
//   g = clip[0] * grad
//   p *= 1 - lr * weight_decay
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   p -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
// In bf16 the float32 master is what moves, and p is its rounding.
//
// m and v are kept as M: Acc<T>, or BF16 (as in DeepSeek-V3, arXiv 2412.19437, section 3.3). The step is of
// the values before they are rounded. They are rounded to nearest: the noise of stochastic rounding would
// depend on where an element lies, and the layout decides that.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

template <class T, class M = Acc<T>>
struct AdamW {
  T* p;                // [n]
  Acc<T>* master;      // [n], or null where T is Acc<T>: p is its own master
  M* m;                // [n]
  M* v;                // [n]
  const Acc<T>* grad;  // [n]
  const Acc<T>* clip;  // [1] in memory of the executor
  int64_t n;
  int64_t step;  // from 1
  double lr, beta1, beta2, eps, weight_decay;
};

// Instantiated for float, BF16, double; with M = BF16 for the first two.
template <class T, class M>
void run(Cpu, const AdamW<T, M>&);
template <class T, class M>
void run(Cuda, const AdamW<T, M>&);

}  // namespace switchyard::kernels
