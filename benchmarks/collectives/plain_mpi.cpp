#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <vector>

#include "benchmarks/collectives/plain.h"

namespace switchyard {

bool plain_is_there() {
  int on = 0;
  MPI_Initialized(&on);
  return on != 0;
}

void plain_all_reduce(float* data, int64_t count) {
  MPI_Allreduce(MPI_IN_PLACE, data, static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

void plain_all_to_all(const float* send, float* recv, int64_t count) {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> counts(size, static_cast<int>(count)), begins(size);
  for (int i = 0; i < size; ++i) begins[i] = static_cast<int>(i * count);
  MPI_Alltoallv(send, counts.data(), begins.data(), MPI_FLOAT, recv, counts.data(), begins.data(), MPI_FLOAT,
                MPI_COMM_WORLD);
}

}  // namespace switchyard
