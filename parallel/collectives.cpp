#include "parallel/collectives.h"

#include <numeric>

namespace switchyard {

namespace {

// Whether the group moves this tensor's memory as it lies.
bool direct(const Tensor& x, const Group& group) {
  return x.device() == Device::kCpu || group->on_device() || group->size() == 1;
}

// Runs f on a host twin of x where the group cannot reach x itself.
template <class F>
void in_reach(const Tensor& x, const Group& group, F&& f) {
  if (x.device() == Device::kMeta) return;
  if (direct(x, group)) return f(x);
  const Tensor host = x.to(Device::kCpu);
  f(host);
  x.copy_from(host);
}

// This rank's of size() equal runs.
Tensor own_run(const Tensor& x, const Group& group) {
  CHECK(x.numel() % group->size() == 0, to_string(x.shape()), " over ", group->size(), " ranks");
  const int64_t n = x.numel() / group->size();
  return x.slice(n * group->rank(), {n});
}

Shape with_rows(const Shape& shape, int64_t rows) {
  std::vector<int64_t> dims = shape.vector();
  dims[0] = rows;
  return Shape(dims);
}

Tensor gathered(const Tensor& x, const Group& group) {
  const Tensor y = Tensor::empty(with_rows(x.shape(), x.dim(0) * group->size()), x.dtype(), x.device());
  if (x.device() == Device::kMeta) return y;
  if (direct(x, group)) {
    group->all_gather(x.raw(), y.raw(), x.numel(), x.dtype());
  } else {
    y.copy_from(gathered(x.to(Device::kCpu), group));
  }
  return y;
}

Tensor scattered(const Tensor& x, const Group& group) {
  CHECK(x.dim(0) % group->size() == 0, to_string(x.shape()), " over ", group->size(), " ranks");
  const Tensor y = Tensor::empty(with_rows(x.shape(), x.dim(0) / group->size()), x.dtype(), x.device());
  if (x.device() == Device::kMeta) return y;
  if (direct(x, group)) {
    group->reduce_scatter(x.raw(), y.raw(), y.numel(), x.dtype());
  } else {
    y.copy_from(scattered(x.to(Device::kCpu), group));
  }
  return y;
}

}  // namespace

void all_reduce_in_place(const Tensor& x, const Group& group, ReduceOp op) {
  in_reach(x, group, [&](const Tensor& t) { group->all_reduce(t.raw(), t.numel(), t.dtype(), op); });
}

void broadcast_in_place(const Tensor& x, const Group& group, int root) {
  in_reach(x, group, [&](const Tensor& t) { group->broadcast(t.raw(), t.numel(), t.dtype(), root); });
}

void reduce_scatter_in_place(const Tensor& x, const Group& group) {
  in_reach(x, group, [&](const Tensor& t) {
    const Tensor own = own_run(t, group);
    group->reduce_scatter(t.raw(), own.raw(), own.numel(), t.dtype());
  });
}

void all_gather_in_place(const Tensor& x, const Group& group) {
  in_reach(x, group, [&](const Tensor& t) {
    const Tensor own = own_run(t, group);
    group->all_gather(own.raw(), t.raw(), own.numel(), t.dtype());
  });
}

Tensor exchange_rows(const Tensor& x, const Counts& send, const Counts& recv, const Group& group) {
  const int64_t out_rows = std::accumulate(recv.begin(), recv.end(), int64_t{0});
  const int64_t width = with_rows(x.shape(), 1).numel();
  const Tensor y = Tensor::empty(with_rows(x.shape(), out_rows), x.dtype(), x.device());
  if (x.device() == Device::kMeta) return y;
  if (!direct(x, group)) {
    y.copy_from(exchange_rows(x.to(Device::kCpu), send, recv, group));
    return y;
  }
  Counts send_elements(send), recv_elements(recv);
  for (int64_t& n : send_elements) n *= width;
  for (int64_t& n : recv_elements) n *= width;
  group->all_to_all(x.raw(), send_elements, y.raw(), recv_elements, x.dtype());
  return y;
}

Var all_reduce(const Var& x, const Group& group) {
  auto reduce = [group](const Tensor& t) {
    const Tensor y = t.clone();
    all_reduce_in_place(y, group);
    return y;
  };
  return record("all_reduce", reduce(x.value()), {x},
                [reduce](const Tensor& dy) -> Tensors { return {reduce(dy)}; });
}

Var all_gather(const Var& x, const Group& group) {
  return record("all_gather", gathered(x.value(), group), {x},
                [group](const Tensor& dy) -> Tensors { return {scattered(dy, group)}; });
}

Var reduce_scatter(const Var& x, const Group& group) {
  return record("reduce_scatter", scattered(x.value(), group), {x},
                [group](const Tensor& dy) -> Tensors { return {gathered(dy, group)}; });
}

Var broadcast(const Var& x, const Group& group, int root) {
  const Tensor y = x.value().clone();
  broadcast_in_place(y, group, root);
  return record("broadcast", y, {x}, [group, root](const Tensor& dy) -> Tensors {
    const Tensor dx = dy.clone();
    // Reduce to the root. The others' copies were overwritten, so theirs is 0.
    all_reduce_in_place(dx, group);
    if (group->rank() != root) dx.zero();
    return {dx};
  });
}

Var all_to_all(const Var& x, const Counts& send, const Counts& recv, const Group& group) {
  return record("all_to_all", exchange_rows(x.value(), send, recv, group), {x},
                [=](const Tensor& dy) -> Tensors { return {exchange_rows(dy, recv, send, group)}; });
}

}  // namespace switchyard
