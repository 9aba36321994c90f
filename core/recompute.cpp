// Activation recomputation: a part of the graph that is not kept, and is built anew in the backward pass.
#include <utility>

#include "core/autograd.h"
#include "core/launch.h"
#include "core/switches.h"
#include "kernels/elementwise.h"

namespace switchyard {
namespace {

// Restores the switches of the thread, also when f throws.
struct Recomputing {
  const Switches before = std::exchange(switches(), {.grad_enabled = true, .recomputing = true});
  ~Recomputing() { switches() = before; }
};

// Runs f again on fresh leaves and sends dys through it. Parameters are leaves of the inner graph too: their
// gradients are added there in place, and the outer engine recognises them.
Tensors backward_again(const std::function<Vars(const Vars&)>& f, const Tensors& inputs,
                       const std::vector<bool>& wants, const Vars& parameters, const Tensors& dys) {
  Recomputing scope;
  Vars leaves;
  for (size_t i = 0; i < inputs.size(); ++i) leaves.emplace_back(inputs[i], wants[i]);
  const Vars ys = f(leaves);
  CHECK(ys.size() == dys.size(), "recompute() gave ", ys.size(), " results after ", dys.size());
  Vars reached;
  Tensors seeds;
  for (size_t i = 0; i < ys.size(); ++i) {
    if (dys[i].defined() && ys[i].requires_grad()) {
      reached.push_back(ys[i]);
      seeds.push_back(dys[i]);
    }
  }
  if (!reached.empty()) {
    const Tensor nothing = Tensor::zeros({1}, reached[0].dtype(), reached[0].device());
    const Var root = record("recompute", nothing, reached, [seeds](const Tensor&) { return seeds; });
    backward(root, nothing);
  }
  Tensors grads;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& grad = leaves[i].grad();
    if (!grad.defined() || grad.dtype() == inputs[i].dtype()) {
      grads.push_back(grad);
    } else {  // a bf16 input's gradient was added up in float32
      Tensor narrow = Tensor::empty(grad.shape(), inputs[i].dtype(), grad.device());
      launch(narrow, [&]<class T>(auto on) {
        kernels::run(on, kernels::Cast<T, Acc<T>>{narrow.data<T>(), grad.data<Acc<T>>(), grad.numel()});
      });
      grads.push_back(narrow);
    }
  }
  for (const Var& parameter : parameters) grads.push_back(parameter.grad());
  return grads;
}

}  // namespace

Vars recompute(const std::function<Vars(const Vars&)>& f, const Vars& inputs, const Vars& parameters) {
  Vars all = inputs;
  all.insert(all.end(), parameters.begin(), parameters.end());
  Tensors ys;
  {
    NoGrad guard;
    for (const Var& y : f(inputs)) ys.push_back(y.value());
  }
  Tensors saved;
  std::vector<bool> wants;
  for (const Var& input : inputs) {
    saved.push_back(input.value());
    wants.push_back(input.requires_grad());
  }
  return record("recompute", std::move(ys), all, [f, saved, wants, parameters](const Tensors& dys) {
    return backward_again(f, saved, wants, parameters, dys);
  });
}

}  // namespace switchyard
