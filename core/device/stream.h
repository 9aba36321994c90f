// The calling thread's stream of the CUDA device, and RAII for events. Every thread-rank has its own stream.
#pragma once

#include "kernels/exec.h"

namespace switchyard {

// Error{kUsage} if there is no usable GPU ("device: CUDA needs a GPU: ...").
void use_cuda_device(int local_rank, int local_size);
int cuda_device_count();

// Stream and library handles of the calling thread, made on first use. Only where kHasCuda and a GPU is
// present.
Cuda current_cuda();
CUstream_st* current_cuda_stream();
// Waits until everything the calling thread enqueued is done. Counted: a training step should need few.
void synchronize_cuda();
long host_syncs();

}  // namespace switchyard
