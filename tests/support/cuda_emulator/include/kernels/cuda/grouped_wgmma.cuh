// Stands before kernels/cuda/grouped_wgmma.cuh on the include path. wgmma and TMA are not emulated: the
// emulated device is an sm_80 (matmul.cpp, runtime.cpp), which never gets here.
#pragma once

#include "kernels/cuda/group_tiles.cuh"

namespace switchyard::kernels::hopper {

template <Form kForm, Ending kEnding = Ending::kStore, class C>
void launch(const GroupedProblem<BF16, C>&, int, CUstream_st*) {
  CHECK(false, "wgmma needs a GPU");
}

}  // namespace switchyard::kernels::hopper
