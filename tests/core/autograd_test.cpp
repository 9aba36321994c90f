#include "core/autograd.h"

#include <gtest/gtest.h>

#include "core/ops.h"
#include "tests/support/gradcheck.h"

namespace switchyard::test {

namespace {

Var leaf(double value) { return Var(Tensor::from<double>({value}, {1}), true); }

TEST(Autograd, AddsGradientsOfSeveralPassesAndUses) {
  const Var x = leaf(2);
  backward(axpby(x, x, 1, 2));
  backward(axpby(x, x, 1, 2));
  EXPECT_EQ(x.grad().to_vector<double>()[0], 6);
}

TEST(Autograd, NoGradBuildsNoGraph) {
  const Var x = leaf(2);
  NoGrad guard;
  EXPECT_FALSE(add(x, x).requires_grad());
}

TEST(Autograd, RefusesAGradientOfTheWrongShape) {
  const Var x(Tensor::zeros({2, 3}, DType::kF64, Device::kCpu), true);
  const Var y = record("bad", Tensor::zeros({1}, DType::kF64, Device::kCpu), {x},
                       [](const Tensor& dy) -> Tensors { return {dy}; });
  EXPECT_THROW(backward(y), Error);
}

TEST(Autograd, RefusesTheWrongNumberOfGradients) {
  const Var x = leaf(1);
  const Var y = record("bad", Tensor::zeros({1}, DType::kF64, Device::kCpu), {x, x},
                       [](const Tensor& dy) -> Tensors { return {dy}; });
  EXPECT_THROW(backward(y), Error);
}

TEST(Autograd, HookFiresOnceWhenTheGradientIsComplete) {
  const Var x = leaf(3);
  int calls = 0;
  double seen = 0;
  x.set_hook([&] {
    ++calls;
    seen = x.grad().to_vector<double>()[0];
  });
  backward(add(add(x, x), x));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(seen, 3);
}

TEST(Autograd, HookFiresOnceAfterRecompute) {
  const Var x = leaf(3), w = leaf(5);
  int calls = 0;
  w.set_hook([&] { ++calls; });
  auto f = [w](const Vars& v) { return Vars{add(v[0], add(w, w))}; };
  backward(add(recompute(f, {x}, {w})[0], recompute(f, {x}, {w})[0]));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(w.grad().to_vector<double>()[0], 4);
  EXPECT_EQ(x.grad().to_vector<double>()[0], 2);
}

TEST(Autograd, PresetGradientIsAddedToInPlace) {
  const Var x = leaf(1);
  const Tensor bucket = Tensor::from<double>({10, 20}, {2});
  x.set_grad(bucket.slice(1, {1}));
  backward(add(x, x));
  EXPECT_EQ(bucket.to_vector<double>(), (std::vector<double>{10, 22}));
}

TEST(Autograd, AForgottenGradientIsReplaced) {
  const Var x = leaf(3), w(Tensor::from<double>({5}, {1, 1}), true), b = leaf(7);
  for (int pass = 0; pass < 2; ++pass) {
    backward(add(linear(Var(Tensor::from<double>({3}, {1, 1})), w, b),
                 linear(Var(Tensor::from<double>({4}, {1, 1})), w)));
    backward(add(x, x));
    EXPECT_EQ(x.grad().to_vector<double>()[0], 2);
    EXPECT_EQ(w.grad().to_vector<double>()[0], 7);
    EXPECT_EQ(b.grad().to_vector<double>()[0], 1);
    for (const Var& v : {x, w, b}) v.forget_grad();
  }
}

TEST(Autograd, AForgottenGradientThatNothingReplacesIsZeroed) {
  const Var reached = leaf(3), apart = leaf(4), x = leaf(5);
  for (const Var& v : {reached, apart}) v.set_grad(Tensor::from<double>({9}, {1}));
  for (const Var& v : {reached, apart}) v.forget_grad();
  double seen = -1;
  reached.set_hook([&] { seen = reached.grad().to_vector<double>()[0]; });
  backward(
      record("no gradient", Tensor::from<double>({1}, {1}), {x, reached}, [](const Tensor& dy) -> Tensors {
        return {dy, Tensor()};
      }));
  EXPECT_EQ(seen, 0);
  apart.settle_grad();
  EXPECT_EQ(apart.grad().to_vector<double>()[0], 0);
}

// As weight_gradient() does with experts': adds 1 to two parts of the gradient, and tells their squares.
Var add_ones(const Var& w) {
  return record("add_ones", Tensor::zeros({1}, DType::kF32, Device::kCpu), {w},
                [w](const Tensor&) -> Tensors {
                  const GradTarget dw = grad_target(w, false, 2);
                  float* const g = dw.tensor.data<float>();
                  for (int64_t i = 0; i < 2; ++i) {
                    g[i] = dw.accumulate ? g[i] + 1 : 1;
                    if (dw.squares.defined()) dw.squares.data<double>()[i] = g[i] * g[i];
                  }
                  return {dw.tensor};
                });
}

TEST(Autograd, SquaresAreKnownWhileEveryWriterTellsThem) {
  const Var w(Tensor::zeros({2}, DType::kF32, Device::kCpu), true);
  w.set_grad(Tensor::zeros({2}, DType::kF32, Device::kCpu));
  const auto squares = [&] { return w.grad_squares().to_vector<double>(); };
  backward(add_ones(w));
  EXPECT_FALSE(w.grad_squares().defined());  // nobody has told those of what it was added to
  w.forget_grad();
  EXPECT_FALSE(w.grad_squares().defined());
  backward(add_ones(w));
  EXPECT_EQ(squares(), (std::vector<double>{1, 1}));
  backward(add_ones(w));
  EXPECT_EQ(squares(), (std::vector<double>{4, 4}));
  backward(axpby(w, w, 1, 1), Tensor::from<float>({1, 1}, {2}));
  EXPECT_FALSE(w.grad_squares().defined());
  w.forget_grad();
  backward(add_ones(w));
  grad_target(w, true);
  EXPECT_FALSE(w.grad_squares().defined());
  w.forget_grad();
  backward(add_ones(w));
  w.forget_grad();
  w.settle_grad();
  EXPECT_FALSE(w.grad_squares().defined());
}

TEST(Autograd, ForwardOnlyGraphsAreFreed) {
  const int64_t before = memory_stats(Device::kCpu).in_use;
  {
    const Var x(Tensor::zeros({1000}, DType::kF32, Device::kCpu), true);
    Var y = x;
    for (int i = 0; i < 50; ++i) y = add(y, y);
  }
  EXPECT_EQ(memory_stats(Device::kCpu).in_use, before);
}

TEST(Autograd, BackwardFreesWhatWasSaved) {
  const Var w(random_tensor({64, 64}, 1, DType::kF32), true);
  const int64_t before = memory_stats(Device::kCpu).in_use;
  {
    Var y(random_tensor({8, 64}, 2, DType::kF32));
    for (int i = 0; i < 5; ++i) y = linear(y, w);
    backward(y, Tensor::zeros(y.shape(), DType::kF32, Device::kCpu));
  }
  const int64_t gradient = 64 * 64 * 4;
  EXPECT_EQ(memory_stats(Device::kCpu).in_use, before + gradient);
}

TEST(Autograd, AValueThatNoClosureSavedIsFreed) {
  const Var x(Tensor::zeros({1000}, DType::kF32, Device::kCpu), true);
  Var y = add(x, x);
  const int64_t before = memory_stats(Device::kCpu).in_use;
  const Var z = add(y, y);
  y = Var();
  EXPECT_EQ(memory_stats(Device::kCpu).in_use, before);
  backward(z, z.value());
  EXPECT_EQ(x.grad().shape(), x.shape());
}

TEST(Autograd, UnusedResultsGiveUndefinedGradients) {
  const Var x = leaf(1);
  const Tensor y = Tensor::from<double>({1}, {1});
  const Vars ys = record("pair", Tensors{y, y}, {x}, [](const Tensors& dys) -> Tensors {
    EXPECT_TRUE(dys[0].defined());
    EXPECT_FALSE(dys[1].defined());
    return {dys[0]};
  });
  backward(ys[0]);
  EXPECT_EQ(x.grad().to_vector<double>()[0], 1);
}

}  // namespace

}  // namespace switchyard::test
