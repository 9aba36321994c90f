#include "kernels/embedding.h"

#include <numeric>

#include "core/launch.h"
#include "core/ops.h"

namespace switchyard {

namespace {

struct SortedIds {
  Tensor ids, order;  // I32 [tokens]
};

// A counting sort: tokens stay in order within an id.
SortedIds sort_ids(const std::vector<int32_t>& ids, int64_t vocab, Device device) {
  const int64_t n = static_cast<int64_t>(ids.size());
  if (device == Device::kMeta)
    return {Tensor::empty({n}, DType::kI32, device), Tensor::empty({n}, DType::kI32, device)};
  std::vector<int32_t> order(n), sorted(n), next(vocab + 1);
  for (const int32_t id : ids) ++next[id + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  for (int64_t i = 0; i < n; ++i) {
    const int32_t at = next[ids[i]]++;
    order[at] = static_cast<int32_t>(i);
    sorted[at] = ids[i];
  }
  return {Tensor::from(sorted, {n}, device), Tensor::from(order, {n}, device)};
}

}  // namespace

Var embedding(const Var& table, const std::vector<int32_t>& ids) {
  const Tensor tv = table.value();
  const int64_t tokens = static_cast<int64_t>(ids.size()), cols = tv.cols();
  const Tensor y = Tensor::empty({tokens, cols}, tv.dtype(), tv.device());
  const Tensor device_ids = Tensor::from(ids, {tokens}, tv.device());
  launch(tv, [&]<class T>(auto on) {
    kernels::run(on, kernels::EmbeddingForward<T>{y.data<T>(), tv.data<T>(), device_ids.data<int32_t>(),
                                                  tokens, cols});
  });
  if (!needs_grad({table})) return Var(y);
  const SortedIds sorted = sort_ids(ids, tv.dim(0), tv.device());
  return record("embedding", y, {table}, [=](const Tensor& dy) -> Tensors {
    const Tensor dtable = grad_target(table, true).tensor;
    launch(dy, [&]<class T>(auto on) {
      kernels::run(
          on, kernels::EmbeddingBackward<T>{dtable.data<Acc<T>>(), dy.data<T>(), sorted.ids.data<int32_t>(),
                                            sorted.order.data<int32_t>(), tokens, cols});
    });
    return {dtable};
  });
}

}  // namespace switchyard
