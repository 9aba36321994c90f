// CUDA's and cuBLAS's error codes as Error. Device memory that runs out is
// kResource, anything else kInternal.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include "kernels/check.h"

namespace switchyard::kernels {

inline void throw_cuda_error(const char* file, int line, const char* call, Fault fault, const char* text) {
  fail(fault, file, ":", line, ": ", call, ": ", text);
}

inline void check_status(cudaError_t status, const char* file, int line, const char* call) {
  if (status == cudaSuccess) return;
  const Fault fault = status == cudaErrorMemoryAllocation ? Fault::kResource : Fault::kInternal;
  throw_cuda_error(file, line, call, fault, cudaGetErrorString(status));
}

inline void check_status(cublasStatus_t status, const char* file, int line, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const Fault fault = status == CUBLAS_STATUS_ALLOC_FAILED ? Fault::kResource : Fault::kInternal;
  throw_cuda_error(file, line, call, fault, cublasGetStatusString(status));
}

}  // namespace switchyard::kernels

// CUDA_CHECK(cudaMalloc(&p, bytes)), CUDA_CHECK(cublasCreate(&handle))
#define CUDA_CHECK(call) ::switchyard::kernels::check_status((call), __FILE__, __LINE__, #call)
