#include "tests/cuda_emulated/sides.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace switchyard::kernels {

void set_reverse_order(bool reverse) {
  cuda_emulator::set_order(reverse ? cuda_emulator::Order::kBackward : cuda_emulator::Order::kForward);
}

bool allow_row_cuts(CudaHandles& handles, float* workspace) {
  handles.has_wgmma = true;
  handles.workspace = workspace;
  return true;
}

}  // namespace switchyard::kernels
