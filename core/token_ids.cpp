#include "core/token_ids.h"

#include <numeric>

namespace switchyard {

SortedIds sort_ids(const std::vector<int32_t>& ids, int64_t vocab) {
  const int64_t n = std::ssize(ids);
  SortedIds sorted{std::vector<int32_t>(n), std::vector<int32_t>(n)};
  std::vector<int32_t> next(vocab + 1);
  for (const int32_t id : ids) ++next[id + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  for (int64_t i = 0; i < n; ++i) {
    const int32_t at = next[ids[i]]++;
    sorted.order[at] = static_cast<int32_t>(i);
    sorted.ids[at] = ids[i];
  }
  return sorted;
}

}  // namespace switchyard
