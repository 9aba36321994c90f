#include "tests/cuda_emulated/sides.h"

namespace switchyard::kernels {

void set_reverse_order(bool) {}  // a GPU takes its own

}  // namespace switchyard::kernels
