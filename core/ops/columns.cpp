#include "core/launch.h"
#include "core/ops.h"
#include "kernels/copy_block.h"

namespace switchyard {

namespace {

// Columns `x_begin` .. + count of x to columns `y_begin` .. of y.
void copy_columns(const Tensor& y, int64_t y_begin, const Tensor& x, int64_t x_begin, int64_t count) {
  const int64_t size = size_of(x.dtype());
  launch_on(x.device(), [&](auto on) {
    kernels::run(on, kernels::CopyBlock{.y = static_cast<char*>(y.raw()) + y_begin * size,
                                        .x = static_cast<const char*>(x.raw()) + x_begin * size,
                                        .y_stride = y.cols() * size,
                                        .x_stride = x.cols() * size,
                                        .row_bytes = count * size,
                                        .rows = x.rows()});
  });
}

Tensor cut(const Tensor& x, int64_t begin, int64_t count) {
  const Tensor y = Tensor::empty({x.rows(), count}, x.dtype(), x.device());
  copy_columns(y, 0, x, begin, count);
  return y;
}

}  // namespace

Var columns(const Var& x, int64_t begin, int64_t count) {
  return record("columns", cut(x.value(), begin, count), {x},
                [begin, count, shape = x.shape()](const Tensor& dy) -> Tensors {
                  const Tensor dx = Tensor::zeros(shape, dy.dtype(), dy.device());
                  copy_columns(dx, begin, dy, 0, count);
                  return {dx};
                });
}

Var join_columns(const Vars& parts) {
  int64_t total = 0;
  std::vector<int64_t> widths;
  for (const Var& part : parts) {
    widths.push_back(part.value().cols());
    total += widths.back();
  }
  const Tensor y = Tensor::empty({parts[0].value().rows(), total}, parts[0].dtype(), parts[0].device());
  int64_t begin = 0;
  for (const Var& part : parts) {
    copy_columns(y, begin, part.value(), 0, part.value().cols());
    begin += part.value().cols();
  }
  return record("join_columns", y, parts, [widths](const Tensor& dy) -> Tensors {
    Tensors grads;
    int64_t offset = 0;
    for (const int64_t width : widths) {
      grads.push_back(cut(dy, offset, width));
      offset += width;
    }
    return grads;
  });
}

}  // namespace switchyard
