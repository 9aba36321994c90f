// Our own float32 matrix product for AVX2 processors: both operands are packed into panels that the innermost
// loop reads front to back, so layout (transposed or not, any leading dimension) and storage (float32 or
// bf16, widened on the way) cost the same. Without AVX-512 oneDNN packs large results only; for the row
// counts of experts and for weight gradients its other kernels reach two thirds of this one's rate.
//
// The scheme is Goto and van de Geijn's, "Anatomy of High-Performance Matrix Multiplication" (2008).
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// Whether this one is to be taken for a result of m rows: not on processors where oneDNN's are faster, nor
// for a few rows, where packing B costs more than it saves.
bool prefer_packed_gemm(int64_t m);

// C (+)= op(A) op(B), every stride filled in, no size zero, on the calling thread. An element's bits depend
// on its row of op(A), its column of op(B) and k alone: any cut of C into blocks gives the same.
template <class T>
void packed_gemm(const Matmul<T, float>&);

}  // namespace switchyard::kernels
