#include "kernels/cuda/handles.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/check.h"

namespace switchyard {

namespace {

int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

}  // namespace

CudaHandles::CudaHandles(CUstream_st* stream) : stream(stream) {
  multiprocessors = device_attribute(cudaDevAttrMultiProcessorCount);
  compute_capability = 10 * device_attribute(cudaDevAttrComputeCapabilityMajor) +
                       device_attribute(cudaDevAttrComputeCapabilityMinor);
  shared_bytes = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  has_wgmma = SWITCHYARD_BUILT_FOR_HOPPER && compute_capability == 90;
  CUDA_CHECK(cudaMalloc(&workspace, kWorkspaceBytes));
  CUDA_CHECK(cublasCreate(&cublas));
  // Before the workspace: it resets the workspace to cuBLAS's own.
  CUDA_CHECK(cublasSetStream(cublas, stream));
  CUDA_CHECK(cublasSetWorkspace(cublas, workspace, kWorkspaceBytes));
  const auto mode = CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
  CUDA_CHECK(cublasSetMathMode(cublas, static_cast<cublasMath_t>(mode)));
}

CudaHandles::~CudaHandles() {
  cublasDestroy(cublas);  // waits for the stream
  cudaFree(workspace);
}

std::unique_ptr<CudaHandles> make_cuda_handles(CUstream_st* stream) {
  return std::make_unique<CudaHandles>(stream);
}

}  // namespace switchyard
