// oneDNN's bf16 products (kernels/cpu/packed_gemm.h tells when) of ragged counts of rows. Each of its
// products is made for one shape (kernels/cpu/gemm.h), so a count is rounded up to a multiple of 32 by
// copying the rows and adding zeros.
#pragma once

#include "kernels/matmul.h"

namespace switchyard::kernels {

// y [m, n] = x [m, k] op(W) for any m: p.c and its ldc as p.n.
void gemm_of_padded_rows(Matmul<BF16, BF16> p);

// dW [m, n] (+)= dy^T [k, m] x [k, n] for any k, in pieces of at most 1024 rows.
void gemm_of_padded_depth(Matmul<BF16, float> p);

}  // namespace switchyard::kernels
