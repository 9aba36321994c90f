#include "parallel/comm/make.h"

namespace switchyard {

Group make_nccl(const Group&, const CommOptions&) {
  fail(Fault::kUsage,
       "this program was built without NCCL: install it beside the CUDA toolkit and build again");
}

}  // namespace switchyard
