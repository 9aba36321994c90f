// Weight gradients of few rows, left as the two matrices that they are the product of:
//
//   dW[g] = dy_g^T x_g,   of the rows offsets[g] .. offsets[g+1]-1 of dy and x
//
// Among many experts one meets few tokens, and its gradient takes many times their bytes, which a step writes
// and reads again. Left as factors it never gets to memory. Its norm is that of two small matrices,
//
//   |dW[g]|^2 = sum over rows i, j of (x_g x_g^T)_ij (dy_g dy_g^T)_ij
//
// and AdamW multiplies it out piece by piece, while weights and moments are fetched.
#pragma once

#include "kernels/adamw.h"
#include "kernels/grouped_matmul.h"

namespace switchyard::kernels {

template <class T>
struct GradientFactors {
  const T* dy;             // [rows, n]
  const T* x;              // [rows, k]
  const int64_t* offsets;  // [groups + 1]
  int64_t groups, n, k;

  int64_t rows(int64_t group) const { return offsets[group + 1] - offsets[group]; }
};

// squares[g] = |dW[g]|^2, of groups of few rows (kFewRows); others' are left as they are.
template <class T>
struct FactorSquares {
  double* squares;  // [groups]
  GradientFactors<T> gradient;
};

// AdamW on the matrices of all groups, n of each k: update.grad [groups, n, k] is read of those of many rows.
template <class T, class M = Acc<T>>
struct FactoredAdamW {
  AdamW<T, M> update;
  GradientFactors<T> gradient;
};

// Where sums_squares<T>(executor). Instantiated for float and BF16.
template <class T>
void run(Cpu, const FactorSquares<T>&);
// And M = Acc<T> or BF16. The same bits as AdamW with the product.
template <class T, class M>
void run(Cpu, const FactoredAdamW<T, M>&);

}  // namespace switchyard::kernels
