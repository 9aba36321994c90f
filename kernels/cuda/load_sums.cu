#include "kernels/load_sums.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

__global__ void add_loads_kernel(AddLoads a) {
  const int64_t e = map_index();
  if (e == 0) a.sums[2 * a.experts] += static_cast<double>(a.tokens);
  if (e >= a.experts) return;
  a.sums[e] += static_cast<double>(a.assigned[e]);
  a.sums[a.experts + e] += static_cast<double>(a.kept[e]);
}

}  // namespace

void run(Cuda on, const AddLoads& a) {
  launch_kernel(add_loads_kernel, map_grid(a.experts), kMapThreads, 0, on.stream, a);
}

}  // namespace switchyard::kernels
