// The calling thread's CUDA stream and library handles. Every thread-rank has its own stream.
#pragma once

#include "kernels/exec.h"

namespace switchyard {

// Error{kUsage} if there is no usable GPU, or if a node has several and fewer than ranks.
void use_cuda_device(int local_rank, int local_size);
int cuda_device_count();

// Stream and library handles of the calling thread, made on first use. Only where
// kHasCuda and a GPU is present.
Cuda current_cuda();
CUstream_st* current_cuda_stream();
// Waits until everything the calling thread enqueued is done. Counted: a training step should need few.
void synchronize_cuda();
long host_syncs();

}  // namespace switchyard
