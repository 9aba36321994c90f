#include "kernels/copy_block.h"
#include "kernels/cuda/check.h"

namespace switchyard::kernels {

void run(Cuda on, const CopyBlock& a) {
  if (a.rows == 0 || a.row_bytes == 0) return;
  CUDA_CHECK(cudaMemcpy2DAsync(a.y, a.y_stride, a.x, a.x_stride, a.row_bytes, a.rows,
                               cudaMemcpyDeviceToDevice, on.stream));
}

}  // namespace switchyard::kernels
