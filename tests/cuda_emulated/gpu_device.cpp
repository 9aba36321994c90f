#include "tests/cuda_emulated/sides.h"

namespace switchyard::kernels {

void set_reverse_order(bool) {}  // a GPU takes its own

bool allow_row_cuts(CudaHandles& handles, float*) { return handles.has_wgmma; }

}  // namespace switchyard::kernels
