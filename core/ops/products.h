// The products of linear and grouped_linear, for ops that are made of several.
#pragma once

#include "core/ops.h"
#include "kernels/late_update.h"

namespace switchyard {

// y = x w^T (transpose_w) or x w, group by group; w is [.., out, in]. Rows outside the groups stay as they
// are; nobody reads them. `update`: of w, which the product sees to (several groups).
void multiply(const Tensor& y, const Tensor& x, const Tensor& w, const RowGroups& groups, bool transpose_w,
              const kernels::LateUpdate* update = nullptr);

// dw (+)= dy^T x, group by group.
Tensor weight_gradient(const Var& w, const Tensor& dy, const Tensor& x, const RowGroups& groups);

// f(w, the groups that it is for), stack by stack.
template <class F>
void each_stack(const Vars& ws, const RowGroups& groups, const F& f) {
  if (groups.is_all_rows()) return f(ws.at(0), groups);
  int64_t begin = 0;
  for (const Var& w : ws) {
    f(w, groups.part(begin, w.dim(0)));
    begin += w.dim(0);
  }
  CHECK(begin == groups.groups(), begin, " matrices for ", groups.groups(), " groups");
}

}  // namespace switchyard
