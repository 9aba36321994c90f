// Gradients against central differences, in double.
#pragma once

#include <functional>

#include "core/autograd.h"

namespace switchyard::test {

// Values in [-1, 1], a function of (seed, index).
Tensor random_tensor(Shape shape, uint64_t seed, DType dtype = DType::kF64, Device device = Device::kCpu);

// ||a - b|| / max(||b||, tiny). NaN anywhere gives NaN.
double relative_error(const Tensor& a, const Tensor& b);

// d <seed, f(inputs)> / d inputs by backward() and by differences; the largest relative error over the
// inputs. Inputs are leaves of double.
double gradient_error(const std::function<Var(const Vars&)>& f, const Tensors& inputs, double step = 1e-6);

}  // namespace switchyard::test
