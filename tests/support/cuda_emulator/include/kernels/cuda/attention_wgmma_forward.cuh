// Stands before kernels/cuda/attention_wgmma_forward.cuh on the include path: wgmma and TMA are not emulated,
// and the emulated device is an sm_80, which never gets here.
#pragma once

#include "kernels/attention.h"

namespace switchyard::kernels::hopper {

template <int kDim>
void launch_attention(const AttentionForward<BF16>&, CUstream_st*) {
  CHECK(false, "wgmma needs a GPU");
}

}  // namespace switchyard::kernels::hopper
