#include "benchmarks/collectives/plain.h"

namespace switchyard {

bool plain_is_there() { return false; }
void plain_all_reduce(float*, int64_t) {}
void plain_all_to_all(const float*, float*, int64_t) {}

}  // namespace switchyard
