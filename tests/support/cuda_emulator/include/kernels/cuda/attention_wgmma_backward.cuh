// Stands before kernels/cuda/attention_wgmma_backward.cuh on the include path: see
// attention_wgmma_forward.cuh beside it.
#pragma once

#include "kernels/attention.h"

namespace switchyard::kernels::hopper {

template <int kDim>
void launch_attention(const AttentionBackward<BF16>&, const float*, CUstream_st*) {
  CHECK(false, "wgmma needs a GPU");
}

}  // namespace switchyard::kernels::hopper
