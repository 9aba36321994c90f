// Token ids as the embedding wants them: where it computes, and sorted for its gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace switchyard {

struct TokenIds {
  Tensor ids;            // I32 [tokens]
  Tensor sorted, order;  // I32 [tokens]: the ids in ascending order, and the tokens that they are of
};

// A counting sort of ids below `vocab`, on the host; tokens stay in order within an id.
struct SortedIds {
  std::vector<int32_t> ids, order;
};
SortedIds sort_ids(const std::vector<int32_t>& ids, int64_t vocab);

}  // namespace switchyard
