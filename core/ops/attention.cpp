#include "kernels/attention.h"

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/attention_last.h"

namespace switchyard {

namespace {

Tensor attention_backward(const Tensor& d_o, const Tensor& o, const Tensor& qkv, const Tensor& lse,
                          const Tensor& documents, const kernels::AttentionShape& shape) {
  const Tensor dqkv = empty_like(qkv);
  int64_t bytes = 0;
  // A plan on the meta device counts none, as on a CPU: a GPU needs 4 bytes a head and token.
  const Device device = qkv.device() == Device::kMeta ? Device::kCpu : qkv.device();
  visit_float(qkv.dtype(), [&]<class T>() {
    launch_on(device, [&](auto on) { bytes = kernels::attention_workspace_bytes<T>(on, shape); });
  });
  const Tensor workspace = Tensor::empty({bytes}, DType::kU8, qkv.device());
  launch(qkv, [&]<class T>(auto on) {
    kernels::run(on, kernels::AttentionBackward<T>{.dqkv = dqkv.data<T>(),
                                                   .d_o = d_o.data<T>(),
                                                   .o = o.data<T>(),
                                                   .qkv = qkv.data<T>(),
                                                   .lse = lse.data<Acc<T>>(),
                                                   .document = documents.data_or_null<int32_t>(),
                                                   .workspace = workspace.raw(),
                                                   .shape = shape});
  });
  return dqkv;
}

}  // namespace

Var attention(const Var& qkv, const kernels::AttentionShape& shape, const Tensor& documents) {
  const Tensor x = qkv.value();
  CHECK(x.cols() == shape.row() && x.rows() == shape.batch * shape.seq, to_string(x.shape()), ", row ",
        shape.row());
  const Tensor o = Tensor::empty({x.rows(), shape.heads * shape.head_dim}, x.dtype(), x.device());
  const Tensor lse = Tensor::empty({shape.batch, shape.heads, shape.seq}, acc_of(x.dtype()), x.device());
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::AttentionForward<T>{.o = o.data<T>(),
                                                  .lse = lse.data<Acc<T>>(),
                                                  .qkv = x.data<T>(),
                                                  .document = documents.data_or_null<int32_t>(),
                                                  .shape = shape});
  });
  return record("attention", o, {qkv}, [=](const Tensor& d_o) -> Tensors {
    return {attention_backward(d_o, o, x, lse, documents, shape)};
  });
}

Tensor attention_of_last(const Tensor& qkv, const kernels::AttentionShape& shape) {
  CHECK(shape.batch == 1 && qkv.cols() == shape.row() && qkv.rows() == shape.seq, to_string(qkv.shape()),
        ", row ", shape.row(), ", seq ", shape.seq);
  const Tensor o = Tensor::empty({1, shape.heads * shape.head_dim}, qkv.dtype(), qkv.device());
  launch(qkv, [&]<class T>(auto on) {
    kernels::run(on, kernels::AttentionLast<T>{.o = o.data<T>(), .qkv = qkv.data<T>(), .shape = shape});
  });
  return o;
}

}  // namespace switchyard
