// Reverse-mode automatic differentiation.
//
// Two types: a Tensor is data; a Var is a tensor plus its place in the graph. An op computes its result and
// calls record() with a closure that turns the gradient of the result into the gradients of the inputs.
// Closures save Tensors (never the Var of their own result: it would own itself) and only *return* gradients;
// the engine adds them up and checks shape, dtype and count. A node is freed as backward() passes it. The
// order of backward() depends on the order of construction alone, so all ranks issue their collectives in the
// same order.
//
// Gradients have the dtype of their value, except those of leaves (parameters), which are accumulated in
// Acc: float32, or double for double. Graph and switches are per thread.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "core/grad_factors.h"
#include "core/tensor.h"
#include "kernels/late_update.h"

namespace switchyard {

struct Node;

class Var {
 public:
  Var() = default;  // undefined: an absent optional input
  explicit Var(Tensor value, bool requires_grad = false);

  bool defined() const { return state_ != nullptr; }
  const Tensor& value() const;
  // Leaves only: an update of the value that waits until somebody asks for the value or changes the
  // gradient, or takes it (null: there is none) and sees to it.
  void update_later(std::shared_ptr<const kernels::LateUpdate> update) const;
  std::shared_ptr<const kernels::LateUpdate> take_update() const;
  // The value, of which no rows but these are read: an update of the others goes on waiting.
  const Tensor& value_of_rows(const std::vector<int64_t>& rows) const;
  void set_value(Tensor value) const;  // of a leaf: parameters get their storage after the model is built
  const Shape& shape() const { return stored().shape(); }
  int64_t dim(int i) const { return stored().dim(i); }
  DType dtype() const { return stored().dtype(); }
  Device device() const { return stored().device(); }

  bool requires_grad() const;
  bool is_leaf() const;
  // Whether nobody else can read the value: an op that was given the variable by std::move may write into it.
  bool is_only_use() const;

  // Leaves only. The accumulated gradient in Acc; undefined before the first backward() unless set. A preset
  // gradient (zeros, a slice of a segment) is added to in place.
  const Tensor& grad() const;
  void set_grad(Tensor grad) const;
  // What the gradient holds is of no more use: the next to come replaces it, which saves a pass of zeros and
  // a pass of reading them. A leaf that backward() reaches without a gradient is zeroed.
  void forget_grad() const;
  void settle_grad() const;  // zeroes it if it is still forgotten
  void keep_grad() const;    // not forgotten any more: work without host code (a Recording) has replaced it
  // Sums of squares, F64, whose sum is that of the gradient's squares, where the ops that made it kept them.
  // Undefined where they did not. Who writes into grad() himself has to know that they do not tell of that.
  Tensor grad_squares() const;
  // Lets ops leave the gradients of few rows as factors, for who asks for those: grad() multiplies them out.
  // grad_squares() tells of them too. Not inside recompute(), which is to save memory.
  void allow_grad_factors(bool allowed) const;
  const std::optional<GradFactors>& grad_factors() const;
  void leave_grad_as(GradFactors factors) const;
  // Called by backward() when this leaf's gradient has received all that this pass adds.
  void set_hook(std::function<void()> hook) const;

 private:
  const Tensor& stored() const;  // the value, which an update may wait for

  struct State;
  friend struct Engine;
  friend struct GradTarget grad_target(const Var& input, bool zeroed, int64_t squares);
  std::shared_ptr<State> state_;
};

using Tensors = std::vector<Tensor>;
using Vars = std::vector<Var>;

// One gradient for each input, undefined where there is none. A closure may also add into a leaf's gradient
// itself and return that tensor: the engine recognises it and adds nothing (see grad_target).
using Backward = std::function<Tensors(const Tensor& dy)>;
using MultiBackward = std::function<Tensors(const Tensors& dys)>;  // undefined dys: that result was not used

Var record(const char* name, Tensor y, Vars inputs, Backward backward);
Vars record(const char* name, Tensors ys, Vars inputs, MultiBackward backward);

// Gradients of `root` with respect to every leaf are added to the leaves. `seed` is d objective / d root
// (ones if undefined).
void backward(const Var& root, Tensor seed = {});

// Where a closure writes the gradient of `input`, which it has to do: a leaf's own gradient, with accumulate
// = true unless that is new or forgotten; else fresh memory of the right dtype. With `zeroed` it may add in
// any case. A closure that can tell the sums of squares of what it leaves, in so many parts, says so by
// `squares`; where they are of use it gets their place, and has to fill it.
struct GradTarget {
  Tensor tensor;
  bool accumulate;
  Tensor squares{};  // F64 [squares]; a part to which nothing is added holds the right sum already
  bool may_stay_factors = false;
};
GradTarget grad_target(const Var& input, bool zeroed = false, int64_t squares = 0);

// Whether record() builds a graph now.
bool grad_enabled();
// Whether an op over these inputs has to save anything.
bool needs_grad(const Vars& inputs);

class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

// Computes f(inputs) without keeping its graph and computes it again in the backward pass. `parameters` are
// the leaves that f reads besides its inputs.
Vars recompute(const std::function<Vars(const Vars&)>& f, const Vars& inputs, const Vars& parameters);
// True inside the second computation: counters and metrics must not move.
bool is_recomputing();

}  // namespace switchyard
