// Columns of a matrix moved to columns of another.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

// Rows of `row_bytes` bytes between two strided places.
struct CopyBlock {
  void* y;
  const void* x;
  int64_t y_stride, x_stride, row_bytes;  // bytes
  int64_t rows;
};
void run(Cpu, const CopyBlock&);
void run(Cuda, const CopyBlock&);

}  // namespace switchyard::kernels
