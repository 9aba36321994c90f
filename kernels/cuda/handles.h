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
  // Of cuBLAS, or of one product beside it; fixed, so that a repeated call takes the same algorithm and the
  // same bits.
  static constexpr int64_t kWorkspaceBytes = 64 << 20;  // cuBLAS asks for 32 MiB on Hopper
  void* workspace = nullptr;
  int multiprocessors = 0;
  int compute_capability = 0;  // 10 * major + minor
  int64_t shared_bytes = 0;    // the most shared memory that a block may have
  bool has_wgmma = false;      // a Hopper, and this is built for one
  bool allow_wgmma = true;     // bf16 attention and grouped products by Hopper's kernels, not by mma.sync's
  bool runs_wgmma() const { return has_wgmma && allow_wgmma; }
};

std::unique_ptr<CudaHandles> make_cuda_handles(CUstream_st* stream);

}  // namespace switchyard
