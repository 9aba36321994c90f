#include "kernels/copy_block.h"

#include <cstring>

namespace switchyard::kernels {

void run(Cpu, const CopyBlock& a) {
#pragma omp parallel for if (a.rows * a.row_bytes > (1 << 18))
  for (int64_t r = 0; r < a.rows; ++r) {
    std::memcpy(static_cast<char*>(a.y) + r * a.y_stride, static_cast<const char*>(a.x) + r * a.x_stride,
                a.row_bytes);
  }
}

}  // namespace switchyard::kernels
