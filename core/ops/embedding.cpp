#include "kernels/embedding.h"

#include "core/launch.h"
#include "core/ops.h"

namespace switchyard {

Var embedding(const Var& table, const TokenIds& tokens) {
  const Tensor tv = table.value();
  const int64_t rows = tokens.ids.numel(), cols = tv.cols();
  const Tensor y = Tensor::empty({rows, cols}, tv.dtype(), tv.device());
  launch(tv, [&]<class T>(auto on) {
    kernels::run(
        on, kernels::EmbeddingForward<T>{y.data<T>(), tv.data<T>(), tokens.ids.data<int32_t>(), rows, cols});
  });
  return record("embedding", y, {table}, [=](const Tensor& dy) -> Tensors {
    const Tensor dtable = grad_target(table, true).tensor;
    launch(dy, [&]<class T>(auto on) {
      kernels::run(on, kernels::EmbeddingBackward<T>{dtable.data<Acc<T>>(), dy.data<T>(),
                                                     tokens.sorted.data<int32_t>(),
                                                     tokens.order.data<int32_t>(), rows, cols});
    });
    return {dtable};
  });
}

}  // namespace switchyard
