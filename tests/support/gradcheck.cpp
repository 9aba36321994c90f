#include "tests/support/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace switchyard::test {

namespace {

std::vector<double> values_of(const Tensor& x) {
  return visit_float(x.dtype(), [&]<class T>() {
    const std::vector<T> values = x.to_vector<T>();
    std::vector<double> out;
    for (const T v : values) out.push_back(static_cast<double>(static_cast<Acc<T>>(v)));
    return out;
  });
}

double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

double value_at(const std::function<Var(const Vars&)>& f, const Tensors& inputs, const Tensor& seed) {
  NoGrad guard;
  Vars vars;
  for (const Tensor& input : inputs) vars.emplace_back(input);
  return dot(f(vars).value(), seed);
}

}  // namespace

Tensor random_tensor(Shape shape, uint64_t seed, DType dtype, Device device) {
  return visit_float(dtype, [&]<class T>() {
    std::vector<T> values(shape.numel());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = T(static_cast<Acc<T>>(2.0 * uniform_of(philox(seed, i)[0]) - 1.0));
    }
    return Tensor::from(values, shape, device);
  });
}

double relative_error(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = values_of(a), y = values_of(b);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += (x[i] - y[i]) * (x[i] - y[i]);
    norm += y[i] * y[i];
  }
  return std::sqrt(difference) / std::max(std::sqrt(norm), 1e-12);
}

double gradient_error(const std::function<Var(const Vars&)>& f, const Tensors& inputs, double step) {
  Vars leaves;
  for (const Tensor& input : inputs) leaves.emplace_back(input, true);
  const Var y = f(leaves);
  const Tensor seed = random_tensor(y.shape(), 99);
  backward(y, seed.clone());
  double worst = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& x = inputs[i];
    const Tensor numeric = Tensor::zeros(x.shape(), DType::kF64, Device::kCpu);
    for (int64_t j = 0; j < x.numel(); ++j) {
      double& element = x.data<double>()[j];
      const double saved = element;
      element = saved + step;
      const double above = value_at(f, inputs, seed);
      element = saved - step;
      const double below = value_at(f, inputs, seed);
      element = saved;
      numeric.data<double>()[j] = (above - below) / (2 * step);
    }
    const Tensor& grad = leaves[i].grad();
    worst = std::max(
        worst, grad.defined() ? relative_error(grad, numeric)
                              : relative_error(Tensor::zeros(x.shape(), DType::kF64, Device::kCpu), numeric));
  }
  return worst;
}

}  // namespace switchyard::test
