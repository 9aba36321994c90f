#include "kernels/routing.h"

#include "kernels/check.h"

namespace switchyard::kernels {

void RouteRule::check() const {
  CHECK(experts <= kMaxExperts && top_k <= experts, "top_k: ", top_k, ", experts: ", experts);
  if (num_groups == 1) return;
  CHECK(num_groups > 0 && experts % num_groups == 0, "experts: ", experts, ", num_groups: ", num_groups);
  CHECK(group_topk >= 1 && group_topk <= num_groups, "group_topk: ", group_topk);
  const int64_t size = experts / num_groups;
  CHECK(top_k <= group_topk * size && top_k / group_topk <= size, "groups of ", size,
        " experts, top_k: ", top_k, ", group_topk: ", group_topk);
}

}  // namespace switchyard::kernels
