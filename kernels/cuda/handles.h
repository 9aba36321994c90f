// What one CUDA stream needs beside the stream: a cuBLAS handle with a workspace of its own, and the facts
// about the device that choose a kernel. Needs none of CUDA's headers.
#pragma once

#include <memory>

#include "kernels/exec.h"

struct cublasContext;

namespace switchyard {

struct CudaHandles {
  // For `stream` of the current device. Waits for nothing on the stream.
  explicit CudaHandles(CUstream_st* stream);
  ~CudaHandles();
  CudaHandles(const CudaHandles&) = delete;
  CudaHandles& operator=(const CudaHandles&) = delete;

  CUstream_st* stream = nullptr;
  cublasContext* cublas = nullptr;
  void* workspace =
      nullptr;  // of cuBLAS; fixed, so that a repeated call takes the same algorithm and the same bits
  int multiprocessors = 0;
  int compute_capability = 0;  // 10 * major + minor
  bool allow_wgmma = true;     // grouped bf16 products by the Hopper kernel instead of the mma.sync one
  bool allow_tf32 =
      false;  // true: float32 products on tensor cores with 10-bit mantissas (relative error near 3e-4)
};

std::unique_ptr<CudaHandles> make_cuda_handles(CUstream_st* stream);

}  // namespace switchyard
