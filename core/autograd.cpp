#include "core/autograd.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "core/launch.h"
#include "core/op_observer.h"
#include "core/switches.h"
#include "kernels/elementwise.h"

namespace switchyard {

struct Var::State {
  Tensor value;
  bool requires_grad = false;
  std::shared_ptr<Node> node;  // null: a leaf
  size_t output = 0;           // which result of the node
  // Of leaves:
  std::shared_ptr<const kernels::LateUpdate> update;
  Tensor grad;
  bool grad_forgotten = false;
  Tensor squares;
  bool squares_known = false;  // `squares` tells of all that is in `grad`
  bool factors_allowed = false;
  std::optional<GradFactors> factors;  // of groups of few rows, whose gradients `grad` does not have then
  std::function<void()> hook;

  // The update reads the gradient, so it is made before that changes.
  void finish_update() {
    if (update != nullptr) std::exchange(update, nullptr)->update_all();
  }

  void settle_grad() {
    if (!std::exchange(grad_forgotten, false)) return;
    finish_update();
    grad.zero();
    squares_known = false;
  }

  void multiply_out() {
    if (const auto left = std::exchange(factors, std::nullopt))
      switchyard::multiply_out(*left, kernels::GroupsOf::kFewRows, grad);
  }

  void forget_factors_and_squares() {
    factors.reset();
    squares_known = false;
  }

  // A closure is about to write the gradient.
  GradTarget take_grad(bool zeroed, int64_t parts) {
    finish_update();
    if (zeroed) settle_grad();
    const bool accumulate = !std::exchange(grad_forgotten, false);
    if (accumulate) multiply_out();
    squares_known = parts > 0 && (squares_known || !accumulate);
    if (!squares_known) return {grad, accumulate};
    if (!squares.defined()) squares = Tensor::empty({parts}, DType::kF64, grad.device());
    return {grad, accumulate, squares, factors_allowed && !accumulate && !is_recomputing()};
  }
};

struct Node {
  struct Slot {
    Tensor grad;
    bool owned = false;  // the tensor is the engine's own sum and may be added to in place
  };
  const char* name;
  uint64_t order;  // of construction
  Vars inputs;
  MultiBackward backward;
  std::vector<Slot> slots;
};

namespace {

thread_local Switches t_switches;
thread_local uint64_t t_next_order = 0;
thread_local const OpObserver* t_observer = nullptr;

void observe(const char* name, bool backward) {
  if (t_observer != nullptr) (*t_observer)(name, backward);
}

void add_into(const Tensor& sum, const Tensor& x) {
  if (sum.dtype() == x.dtype()) {
    launch(sum, [&]<class T>(auto on) {
      kernels::run(
          on, kernels::Axpby<T>{.y = sum.data<T>(), .a = sum.data<T>(), .b = x.data<T>(), .n = x.numel()});
    });
  } else {
    launch(x, [&]<class T>(auto on) {
      kernels::run(on, kernels::Accumulate<T>{.y = sum.data<Acc<T>>(), .x = x.data<T>(), .n = x.numel()});
    });
  }
}

Tensor sum_of(const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::empty(a.shape(), a.dtype(), a.device());
  launch(a, [&]<class T>(auto on) {
    kernels::run(on, kernels::Axpby<T>{.y = y.data<T>(), .a = a.data<T>(), .b = b.data<T>(), .n = a.numel()});
  });
  return y;
}

Tensor ones_like(const Tensor& value) {
  CHECK(value.numel() == 1, "backward() of ", to_string(value.shape()), " needs a seed");
  return visit_float(value.dtype(),
                     [&]<class T>() { return Tensor::from<T>({T(1.0f)}, value.shape(), value.device()); });
}

}  // namespace

struct Engine {
  static Var result(Tensor y, const std::shared_ptr<Node>& node, size_t output) {
    Var v(std::move(y), true);
    v.state_->node = node;
    v.state_->output = output;
    return v;
  }

  // What the graph needs of an input: all of a leaf; of a result its place and shape. The values that
  // backward() needs are those that closures save; any other is free as soon as the forward pass has done
  // with it.
  static Vars edges(Vars inputs) {
    for (Var& input : inputs) {
      if (!input.defined() || input.is_leaf()) continue;
      Var edge = result(input.value().outline(), input.state_->node, input.state_->output);
      input = std::move(edge);
    }
    return inputs;
  }

  static Node* node_of(const Var& v) { return v.state_ ? v.state_->node.get() : nullptr; }

  // All nodes that `root` depends on, newest first.
  static std::vector<std::shared_ptr<Node>> collect(const Var& root) {
    std::vector<std::shared_ptr<Node>> nodes, stack{root.state_->node};
    std::unordered_set<Node*> seen{root.state_->node.get()};
    while (!stack.empty()) {
      std::shared_ptr<Node> node = std::move(stack.back());
      stack.pop_back();
      for (const Var& input : node->inputs) {
        if (Node* next = node_of(input); next != nullptr && seen.insert(next).second) {
          stack.push_back(input.state_->node);
        }
      }
      nodes.push_back(std::move(node));
    }
    std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a->order > b->order; });
    return nodes;
  }

  void run(const Var& root, Tensor seed) {
    if (root.state_->node == nullptr) {
      give(root, std::move(seed), "backward");
      if (root.state_->hook) root.state_->hook();
      return;
    }
    std::vector<std::shared_ptr<Node>> nodes = collect(root);
    for (const auto& node : nodes) {
      for (const Var& input : node->inputs) {
        if (input.requires_grad() && input.is_leaf()) ++pending_[input.state_.get()];
      }
    }
    give(root, std::move(seed), "backward");
    for (auto& node : nodes) {
      pass(*node);
      node.reset();
    }
  }

  void pass(Node& node) {
    Tensors dys;
    bool reached = false;
    for (Node::Slot& slot : node.slots) {
      reached |= slot.grad.defined();
      dys.push_back(std::move(slot.grad));
    }
    node.slots.clear();
    Tensors grads(node.inputs.size());
    if (reached) grads = node.backward(dys);
    dys.clear();
    CHECK(grads.size() == node.inputs.size(), node.name, " returned ", grads.size(), " gradients for ",
          node.inputs.size(), " inputs");
    node.backward = nullptr;  // frees what it saved
    const Vars inputs = std::move(node.inputs);
    node.inputs.clear();
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i].requires_grad()) continue;
      if (grads[i].defined()) give(inputs[i], std::move(grads[i]), node.name);
      if (inputs[i].is_leaf()) leaf_done(inputs[i]);
    }
    observe(node.name, true);
  }

  void leaf_done(const Var& leaf) {
    // Inside recompute() the outer pass, which knows all uses, calls the hook.
    if (--pending_[leaf.state_.get()] > 0 || t_switches.recomputing) return;
    leaf.state_->settle_grad();
    if (leaf.state_->hook) leaf.state_->hook();
  }

  static void give(const Var& to, Tensor grad, const char* from) {
    Var::State& state = *to.state_;
    CHECK(grad.shape() == state.value.shape(), from, " gave ", to_string(grad.shape()), " for ",
          to_string(state.value.shape()));
    if (state.node == nullptr) {
      give_leaf(state, std::move(grad), from);
      return;
    }
    CHECK(grad.dtype() == state.value.dtype(), from, " gave ", name_of(grad.dtype()), " for ",
          name_of(state.value.dtype()));
    Node::Slot& slot = state.node->slots[state.output];
    if (!slot.grad.defined()) {
      slot = {std::move(grad), false};
    } else if (slot.owned) {
      add_into(slot.grad, grad);
    } else {
      slot = {sum_of(slot.grad, grad), true};
    }
  }

  static void give_leaf(Var::State& leaf, Tensor grad, const char* from) {
    if (grad.same_memory(leaf.grad)) return;  // the closure has added it there
    CHECK(grad.dtype() == leaf.value.dtype() || grad.dtype() == acc_of(leaf.value.dtype()), from, " gave ",
          name_of(grad.dtype()), " for a leaf of ", name_of(leaf.value.dtype()));
    if (!leaf.grad.defined()) {
      leaf.grad = Tensor::zeros(grad.shape(), acc_of(leaf.value.dtype()), grad.device());
    }
    leaf.settle_grad();
    leaf.multiply_out();
    leaf.squares_known = false;
    add_into(leaf.grad, grad);
  }

 private:
  std::unordered_map<Var::State*, int> pending_;  // looked up, never iterated
};

Var::Var(Tensor value, bool requires_grad) : state_(std::make_shared<State>()) {
  state_->value = std::move(value);
  state_->requires_grad = requires_grad;
}

const Tensor& Var::value() const {
  CHECK(defined(), "the variable is undefined");
  state_->finish_update();
  return state_->value;
}

const Tensor& Var::stored() const {
  CHECK(defined(), "the variable is undefined");
  return state_->value;
}

void Var::update_later(std::shared_ptr<const kernels::LateUpdate> update) const {
  CHECK(is_leaf(), "only a leaf can have an update");
  state_->finish_update();
  state_->update = std::move(update);
}

std::shared_ptr<const kernels::LateUpdate> Var::take_update() const {
  CHECK(defined(), "the variable is undefined");
  return state_->update == nullptr ? nullptr : std::exchange(state_->update, nullptr);
}

const Tensor& Var::value_of_rows(const std::vector<int64_t>& rows) const {
  if (state_->update != nullptr)
    for (const int64_t row : rows) state_->update->finish(row);
  return stored();
}

void Var::set_value(Tensor value) const {
  CHECK(is_leaf(), "only a leaf's value can be set");
  state_->finish_update();
  state_->value = std::move(value);
}

bool Var::requires_grad() const { return state_ && state_->requires_grad; }
bool Var::is_leaf() const { return state_ && state_->node == nullptr; }
bool Var::is_only_use() const { return state_.use_count() == 1 && !state_->value.is_shared(); }

const Tensor& Var::grad() const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  state_->multiply_out();
  return state_->grad;
}

void Var::set_grad(Tensor grad) const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  state_->finish_update();
  state_->grad = std::move(grad);
  state_->grad_forgotten = false;
  state_->forget_factors_and_squares();
}

void Var::forget_grad() const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  state_->grad_forgotten = state_->grad.defined();
  state_->factors.reset();
}

void Var::settle_grad() const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  state_->settle_grad();
}

void Var::keep_grad() const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  state_->grad_forgotten = false;
  state_->forget_factors_and_squares();
}

Tensor Var::grad_squares() const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  return state_->squares_known && !state_->grad_forgotten ? state_->squares : Tensor();
}

void Var::allow_grad_factors(bool allowed) const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  state_->factors_allowed = allowed;
}

const std::optional<GradFactors>& Var::grad_factors() const {
  CHECK(is_leaf(), "only leaves keep their gradient");
  return state_->factors;
}

void Var::leave_grad_as(GradFactors factors) const { state_->factors = std::move(factors); }

void Var::set_hook(std::function<void()> hook) const {
  CHECK(is_leaf(), "only leaves have hooks");
  state_->hook = std::move(hook);
}

void set_op_observer(const OpObserver* observer) { t_observer = observer; }

Switches& switches() { return t_switches; }

bool grad_enabled() { return t_switches.grad_enabled; }
bool is_recomputing() { return t_switches.recomputing; }

bool needs_grad(const Vars& inputs) {
  return t_switches.grad_enabled &&
         std::any_of(inputs.begin(), inputs.end(), [](const Var& v) { return v.requires_grad(); });
}

Vars record(const char* name, Tensors ys, Vars inputs, MultiBackward backward) {
  Vars results;
  observe(name, false);
  if (!needs_grad(inputs)) {
    for (Tensor& y : ys) results.emplace_back(std::move(y));
    return results;
  }
  auto node = std::make_shared<Node>(Node{name, t_next_order++, Engine::edges(std::move(inputs)),
                                          std::move(backward), std::vector<Node::Slot>(ys.size())});
  for (size_t i = 0; i < ys.size(); ++i) results.push_back(Engine::result(std::move(ys[i]), node, i));
  return results;
}

Var record(const char* name, Tensor y, Vars inputs, Backward backward) {
  if (!needs_grad(inputs)) {
    observe(name, false);
    return Var(std::move(y));
  }
  auto multi = [backward = std::move(backward)](const Tensors& dys) { return backward(dys[0]); };
  return record(name, Tensors{std::move(y)}, std::move(inputs), std::move(multi))[0];
}

void backward(const Var& root, Tensor seed) {
  CHECK(root.requires_grad(), "backward() of a value that depends on no parameter");
  if (!seed.defined()) seed = ones_like(root.value());
  Engine().run(root, std::move(seed));
}

GradTarget grad_target(const Var& input, bool zeroed, int64_t squares) {
  if (input.is_leaf() && input.state_->grad.defined()) return input.state_->take_grad(zeroed, squares);
  const DType dtype = input.is_leaf() ? acc_of(input.dtype()) : input.dtype();
  const Tensor grad = zeroed ? Tensor::zeros(input.shape(), dtype, input.device())
                             : Tensor::empty(input.shape(), dtype, input.device());
  if (input.is_leaf()) input.set_grad(grad);
  return {grad, false};
}

NoGrad::NoGrad() : previous_(std::exchange(t_switches.grad_enabled, false)) {}
NoGrad::~NoGrad() { t_switches.grad_enabled = previous_; }

}  // namespace switchyard
