#include "trainer/job/threads.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

namespace switchyard {

void choose_threads(int64_t threads, int local_size) {
  if (threads <= 0 && std::getenv("OMP_NUM_THREADS") != nullptr) return;
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  omp_set_num_threads(static_cast<int>(threads > 0 ? threads : std::max<int64_t>(1, cores / local_size)));
}

}  // namespace switchyard
