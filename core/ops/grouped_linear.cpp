#include "core/ops.h"
#include "core/ops/common.h"
#include "core/ops/products.h"

namespace switchyard {

namespace {

Tensor product(const Tensor& x, const Vars& ws, const RowGroups& groups, bool transpose_w) {
  const Tensor y = Tensor::empty({x.rows(), ws.at(0).dim(transpose_w ? 1 : 2)}, x.dtype(), x.device());
  each_stack(ws, groups, [&](const Var& w, const RowGroups& part) {
    const auto update = w.take_update();
    multiply(y, x, w.value(), part, transpose_w, update.get());
  });
  return y;
}

}  // namespace

RowGroups RowGroups::part(int64_t begin, int64_t count) const {
  if (begin == 0 && count == groups()) return *this;
  CHECK(begin + count <= groups(), begin + count, " of ", groups(), " groups");
  RowGroups part{offsets.slice(begin, {count + 1}), nullptr};
  if (host)
    part.host =
        std::make_shared<std::vector<int64_t>>(host->begin() + begin, host->begin() + begin + count + 1);
  return part;
}

Var grouped_linear(const Var& x, const Vars& ws, const RowGroups& groups) {
  Vars inputs{x};
  for (const Var& w : ws) {
    CHECK(w.is_leaf() && w.dtype() == x.dtype());
    inputs.push_back(w);
  }
  const Tensor xv = x.value();
  return record("grouped_linear", product(xv, ws, groups, true), std::move(inputs),
                [xv, ws, groups, want = x.requires_grad()](const Tensor& dy) -> Tensors {
                  Tensors grads{want ? product(dy, ws, groups, false) : Tensor()};
                  each_stack(ws, groups, [&](const Var& w, const RowGroups& part) {
                    grads.push_back(gradient_if(w, [&] { return weight_gradient(w, dy, xv, part); }));
                  });
                  return grads;
                });
}

}  // namespace switchyard
