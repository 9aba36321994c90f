#include "kernels/load_sums.h"

namespace switchyard::kernels {

void run(Cpu, const AddLoads& a) {
  for (int64_t e = 0; e < a.experts; ++e) {
    a.sums[e] += static_cast<double>(a.assigned[e]);
    a.sums[a.experts + e] += static_cast<double>(a.kept[e]);
  }
  a.sums[2 * a.experts] += static_cast<double>(a.tokens);
}

}  // namespace switchyard::kernels
