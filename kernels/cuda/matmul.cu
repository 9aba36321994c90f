#include "kernels/matmul.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <limits>

#include "kernels/cuda/check.h"
#include "kernels/cuda/handles.h"
#include "kernels/cuda/one_group.h"

namespace switchyard::kernels {

namespace {

template <class T>
constexpr cudaDataType kDataType = std::is_same_v<T, double>  ? CUDA_R_64F
                                   : std::is_same_v<T, float> ? CUDA_R_32F
                                                              : CUDA_R_16BF;

// No TF32: its mantissas of 10 bits would not be float32.
template <class T>
constexpr cublasComputeType_t kComputeType =
    std::is_same_v<T, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;

int to_int(int64_t n) {
  CHECK(n >= 0 && n <= std::numeric_limits<int>::max(), "a dimension of ", n);
  return static_cast<int>(n);
}

cublasOperation_t operation(bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; }

}  // namespace

// cuBLAS is column-major: what it sees of a row-major matrix is the transpose. So it is asked for
// C^T = op(B)^T op(A)^T, with the operands swapped and their transposition as it stands.
template <class T, class C>
void run(Cuda exec, const Matmul<T, C>& p) {
  if (p.m == 0 || p.n == 0) return;
  const int64_t lda = p.lda ? p.lda : p.transpose_a ? p.m : p.k;
  const int64_t ldb = p.ldb ? p.ldb : p.transpose_b ? p.k : p.n;
  const int64_t ldc = p.ldc ? p.ldc : p.n;
  if (p.k == 0) {
    if (p.accumulate) return;
    CUDA_CHECK(cudaMemset2DAsync(p.c, ldc * sizeof(C), 0, p.n * sizeof(C), p.m, exec.stream));
    return;
  }
  CHECK(exec.handles && exec.handles->stream == exec.stream, "cuBLAS handles of another stream");
  if constexpr (std::is_same_v<T, BF16> && std::is_same_v<C, BF16>) {
    if (run_as_one_group(exec, p)) return;
  }
  const Acc<T> alpha = 1, beta = p.accumulate ? 1 : 0;
  CUDA_CHECK(cublasGemmEx(exec.handles->cublas, operation(p.transpose_b), operation(p.transpose_a),
                          to_int(p.n), to_int(p.m), to_int(p.k), &alpha, p.b, kDataType<T>, to_int(ldb), p.a,
                          kDataType<T>, to_int(lda), &beta, p.c, kDataType<C>, to_int(ldc), kComputeType<T>,
                          CUBLAS_GEMM_DEFAULT));
}

template void run(Cuda, const Matmul<float, float>&);
template void run(Cuda, const Matmul<BF16, BF16>&);
template void run(Cuda, const Matmul<BF16, float>&);
template void run(Cuda, const Matmul<double, double>&);

}  // namespace switchyard::kernels
