// Softmax cross-entropy and its gradient, row by row, in one visit of the logits:
//   loss[r] = logsumexp(z[r, :]) - z[r, target[r]]
//   dz[r, c] = scale * (softmax(z[r, :])[c] - [c == target[r]])
// A target of -1 is no target: loss 0, gradient 0.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

template <class T>
struct CrossEntropy {
  Acc<T>* loss;  // [rows]
  T* dlogits;    // [rows, vocab] or null (no gradient wanted); may be the memory of logits where T is Acc<T>
  const Acc<T>* logits;   // [rows, vocab]
  const int32_t* target;  // [rows], -1 or 0 <= target < vocab
  int64_t rows, vocab;
  Acc<T> scale;
};

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const CrossEntropy<T>&);
template <class T>
void run(Cuda, const CrossEntropy<T>&);

}  // namespace switchyard::kernels
