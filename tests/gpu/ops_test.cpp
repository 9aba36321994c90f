// Every op of the op-case table, and the larger ones below, on CUDA against double on the CPU.
//
// The inputs are rounded to the tested type first, so the error is that of the op alone. Tolerances are of
// ||y - ref|| / ||ref||, for the value and for each input's gradient.
#include <cstring>

#include "tests/gpu/gpu.h"
#include "tests/support/gradcheck.h"
#include "tests/support/op_cases.h"

namespace switchyard::test {

namespace {

RowGroups groups_of(std::vector<int64_t> offsets, Device device) {
  auto host = std::make_shared<const std::vector<int64_t>>(std::move(offsets));
  return {Tensor::from(*host, {static_cast<int64_t>(host->size())}, device), host};
}

Var attend(const Vars& v, int64_t batch, int64_t seq, int64_t heads, int64_t kv_heads, int64_t dim) {
  return attention(v[0], {batch, seq, heads, kv_heads, dim, 0.1f});
}

Var rotate(const Vars& v) {
  const RopeTable table = make_rope_table(64, 64, 10000, v[0].dtype(), v[0].device());
  return norm_rope(v[0], v[1], v[2], table, {2, 64, 4, 2, 64, 1.0f}, 1e-6);
}

std::vector<int32_t> some_targets(int64_t rows, int64_t vocab) {
  std::vector<int32_t> targets;
  for (int64_t r = 0; r < rows; ++r)
    targets.push_back(r % 11 == 3 ? -1 : static_cast<int32_t>(r * 7919 % vocab));
  return targets;
}

// Sizes that reach the tensor-core kernels, and ragged edges of their tiles. Group 1 is empty.
const std::vector<OpCase>& large_cases() {
  static const std::vector<OpCase> cases{
      {"large_linear", {{300, 256}, {384, 256}}, [](const Vars& v) { return linear(v[0], v[1]); }},
      {"large_grouped_linear",
       {{530, 256}, {5, 192, 256}},
       [](const Vars& v) {
         return grouped_linear(v[0], {v[1]}, groups_of({0, 130, 130, 131, 400, 530}, v[0].device()));
       }},
      {"large_grouped_linear_device_offsets",
       {{530, 256}, {5, 192, 256}},
       [](const Vars& v) {
         RowGroups groups = groups_of({0, 130, 130, 131, 400, 530}, v[0].device());
         if (v[0].device() == Device::kCuda) groups.host = nullptr;
         return grouped_linear(v[0], {v[1]}, groups);
       }},
      {"large_rms_norm", {{200, 1024}, {1024}}, [](const Vars& v) { return rms_norm(v[0], v[1], 1e-5); }},
      {"large_add_rms_norm",
       {{300, 1024}, {300, 1024}, {1024}},
       [](const Vars& v) {
         const SumAndNorm r = add_rms_norm(v[0], v[1], v[2], 1e-5);
         return join_columns({r.sum, r.norm});
       }},
      {"large_swiglu", {{130, 1024}}, [](const Vars& v) { return swiglu(v[0]); }},
      {"large_norm_rope", {{128, 512}, {64}, {64}}, rotate},
      {"large_attention_64", {{400, 512}}, [](const Vars& v) { return attend(v, 2, 200, 4, 2, 64); }},
      {"large_attention_128", {{150, 512}}, [](const Vars& v) { return attend(v, 1, 150, 2, 1, 128); }},
      {"large_cross_entropy",
       {{200, 128}, {3001, 128}},
       [](const Vars& v) {
         const Tensor targets = Tensor::from(some_targets(200, 3001), {200}, v[0].device());
         return linear_cross_entropy(v[0], v[1], targets, 0.01).loss;
       }},
      {"large_route",
       {{500, 64}},
       [](const Vars& v) {
         const Routing r =
             route(v[0], {}, {.experts = 64, .top_k = 8, .pre_softmax = true, .normalize = true});
         return join_columns({r.weight, r.scores});
       },
       1e-6,
       true},
  };
  return cases;
}

// The same elements on the host in another type; from double they are rounded.
Tensor converted(const Tensor& x, DType dtype) {
  return visit_float(x.dtype(), [&]<class From>() {
    return visit_float(dtype, [&]<class To>() {
      std::vector<To> values;
      for (const From v : x.to_vector<From>())
        values.push_back(To(static_cast<Acc<To>>(static_cast<Acc<From>>(v))));
      return Tensor::from(values, x.shape());
    });
  });
}

// The value, then one gradient for each input, on the host. `inputs`: on the host, of the type to run in.
Tensors run_case(const OpCase& c, const Tensors& inputs, Device device) {
  Vars leaves;
  for (const Tensor& x : inputs) leaves.emplace_back(x.to(device).clone(), true);
  const Var y = c.call(leaves);
  Tensors results{y.value().to(Device::kCpu)};
  const Tensor seed = random_tensor(y.shape(), 99, inputs[0].dtype());  // rounded as the inputs are
  backward(y, converted(seed, y.dtype()).to(device).clone());
  for (const Var& leaf : leaves) {
    results.push_back(leaf.grad().defined()
                          ? leaf.grad().to(Device::kCpu)
                          : Tensor::zeros(leaf.shape(), acc_of(leaf.dtype()), Device::kCpu));
  }
  return results;
}

Tensors inputs_of(const OpCase& c, DType dtype) {
  Tensors inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) inputs.push_back(random_tensor(c.inputs[i], 7 + i, dtype));
  return inputs;
}

// In double, of the rounded values: inputs and the seed of backward.
Tensors reference_of(const OpCase& c, const Tensors& inputs) {
  Vars leaves;
  for (const Tensor& x : inputs) leaves.emplace_back(converted(x, DType::kF64).clone(), true);
  const Var y = c.call(leaves);
  Tensors results{y.value()};
  backward(y, converted(random_tensor(y.shape(), 99, inputs[0].dtype()), DType::kF64).clone());
  for (const Var& leaf : leaves) {
    results.push_back(leaf.grad().defined() ? leaf.grad()
                                            : Tensor::zeros(leaf.shape(), DType::kF64, Device::kCpu));
  }
  return results;
}

double tolerance_of(const OpCase& c, DType dtype) {
  if (dtype == DType::kF64) return 1e-9;
  if (dtype == DType::kF32) return c.wide ? 1e-4 : 2e-5;  // softmax gradients cancel
  return 2e-2;
}

std::string label(const std::string& op, DType dtype, size_t result) {
  return op + " in " + name_of(dtype) +
         (result == 0 ? ": value" : ": gradient of input " + std::to_string(result - 1));
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> all = op_cases();
  all.insert(all.end(), large_cases().begin(), large_cases().end());
  return all;
}

class GpuOps : public GpuTest, public ::testing::WithParamInterface<OpCase> {
 protected:
  void expect_close(DType dtype) {
    const OpCase& c = GetParam();
    if (c.wide && dtype == DType::kBF16) GTEST_SKIP() << "never in bf16";
    const Tensors inputs = inputs_of(c, dtype);
    const Tensors expected = reference_of(c, inputs), actual = run_case(c, inputs, Device::kCuda);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(actual[i].shape(), expected[i].shape()) << label(c.name, dtype, i);
      EXPECT_LE(relative_error(actual[i], expected[i]), tolerance_of(c, dtype)) << label(c.name, dtype, i);
    }
  }

  void expect_same_bits(DType dtype) {
    const OpCase& c = GetParam();
    if (c.wide && dtype == DType::kBF16) GTEST_SKIP() << "never in bf16";
    const Tensors inputs = inputs_of(c, dtype);
    const Tensors first = run_case(c, inputs, Device::kCuda), again = run_case(c, inputs, Device::kCuda);
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_EQ(std::memcmp(first[i].raw(), again[i].raw(), first[i].bytes()), 0) << label(c.name, dtype, i);
    }
  }
};

TEST_P(GpuOps, DoubleIsTheCpus) { expect_close(DType::kF64); }
TEST_P(GpuOps, Float32IsClose) { expect_close(DType::kF32); }
TEST_P(GpuOps, Bf16IsClose) { expect_close(DType::kBF16); }
TEST_P(GpuOps, Float32Repeats) { expect_same_bits(DType::kF32); }
TEST_P(GpuOps, Bf16Repeats) { expect_same_bits(DType::kBF16); }

INSTANTIATE_TEST_SUITE_P(Every, GpuOps, ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.name; });

// <seed, f(inputs)> computed on the GPU, summed on the host.
double objective(const OpCase& c, const std::vector<std::vector<double>>& values,
                 const std::vector<double>& seed) {
  NoGrad guard;
  Vars vars;
  for (size_t i = 0; i < values.size(); ++i)
    vars.emplace_back(Tensor::from(values[i], c.inputs[i], Device::kCuda));
  const std::vector<double> y = c.call(vars).value().to_vector<double>();
  double sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += y[i] * seed[i];
  return sum;
}

class GpuGradients : public GpuTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(GpuGradients, AreTheDifferences) {
  const OpCase* found = nullptr;
  for (const OpCase& c : op_cases()) found = c.name == GetParam() ? &c : found;
  ASSERT_NE(found, nullptr);
  const Tensors inputs = inputs_of(*found, DType::kF64), grads = run_case(*found, inputs, Device::kCuda);
  const std::vector<double> seed = random_tensor(grads[0].shape(), 99).to_vector<double>();
  std::vector<std::vector<double>> values;
  for (const Tensor& x : inputs) values.push_back(x.to_vector<double>());
  for (size_t i = 0; i < values.size(); ++i) {
    std::vector<double> numeric;
    for (double& x : values[i]) {
      const double saved = x;
      x = saved + 1e-6;
      const double above = objective(*found, values, seed);
      x = saved - 1e-6;
      numeric.push_back((above - objective(*found, values, seed)) / 2e-6);
      x = saved;
    }
    EXPECT_LE(relative_error(grads[i + 1], Tensor::from(numeric, found->inputs[i])), 1e-6) << "input " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Some, GpuGradients,
                         ::testing::Values("linear", "grouped_linear", "rms_norm", "swiglu", "norm_rope",
                                           "attention", "linear_cross_entropy", "route_normalized",
                                           "combine"),
                         [](const auto& info) { return info.param; });

// A router's product: x in bf16, the weight and the results in float32.
struct MixedLinear : GpuTest {
  // The value and the gradients of x and w, w's added to `grad` where there is one.
  static Tensors run(const Tensor& x, const Tensor& w, const Tensor& dy, Device device,
                     const Tensor& grad = {}) {
    const Var xs(x.to(device).clone(), true), ws(w.to(device).clone(), true);
    if (grad.defined()) ws.set_grad(grad.to(device).clone());
    const Var y = mixed_linear(xs, ws);
    backward(y, dy.to(device).clone());
    return {y.value().to(Device::kCpu), xs.grad().to(Device::kCpu), ws.grad().to(Device::kCpu)};
  }

  static Tensors exact(const Tensor& x, const Tensor& w, const Tensor& dy, const Tensor& grad = {}) {
    return run(converted(x, DType::kF64), converted(w, DType::kF64), converted(dy, DType::kF64), Device::kCpu,
               grad.defined() ? converted(grad, DType::kF64) : grad);
  }
};

struct MixedShape {
  int64_t rows, cols, outputs;
};
constexpr MixedShape kMixedShapes[] = {{1, 8, 1}, {37, 40, 5}, {64, 128, 8}, {96, 72, 64}};

// bf16's rounding of the weight or of dy would be an error of 2e-3.
TEST_F(MixedLinear, IsAsExactAsFloat32) {
  for (const auto& [rows, cols, outputs] : kMixedShapes) {
    SCOPED_TRACE(to_string(Shape{rows, cols, outputs}));
    const Tensor x = random_tensor({rows, cols}, 1, DType::kBF16);
    const Tensor w = random_tensor({outputs, cols}, 2, DType::kF32);
    const Tensor dy = random_tensor({rows, outputs}, 3, DType::kF32);
    const Tensors expected = exact(x, w, dy), actual = run(x, w, dy, Device::kCuda);
    EXPECT_EQ(actual[0].dtype(), DType::kF32);
    EXPECT_LT(relative_error(actual[0], expected[0]), 1e-6);
    EXPECT_LT(relative_error(actual[1], expected[1]), 3e-3);  // rounded to bf16
    EXPECT_LT(relative_error(actual[2], expected[2]), 1e-6);
  }
}

TEST_F(MixedLinear, RoundsTheGradientOfXOnce) {
  const Tensor x = random_tensor({50, 48}, 1, DType::kBF16), w = random_tensor({16, 48}, 2, DType::kF32);
  const Tensor dy = random_tensor({50, 16}, 3, DType::kF32);
  const Tensors expected = exact(x, w, dy), actual = run(x, w, dy, Device::kCuda);
  // Half a unit in the last place of 8 bits is at most 2^-8 of the value; of sums that cancel, a little more.
  const auto dx = expected[1].to_vector<double>();
  const auto found = actual[1].to_vector<float>();
  for (size_t i = 0; i < dx.size(); ++i) EXPECT_NEAR(found[i], dx[i], std::abs(dx[i]) / 256 + 1e-3) << i;
}

TEST_F(MixedLinear, AddsToAGradient) {
  const Tensor x = random_tensor({37, 40}, 1, DType::kBF16), w = random_tensor({8, 40}, 2, DType::kF32);
  const Tensor dy = random_tensor({37, 8}, 3, DType::kF32), grad = random_tensor({8, 40}, 4, DType::kF32);
  const Tensors expected = exact(x, w, dy, grad), actual = run(x, w, dy, Device::kCuda, grad);
  EXPECT_LT(relative_error(actual[2], expected[2]), 1e-6);
}

TEST_F(MixedLinear, OfNoRowsHasAZeroGradient) {
  const Tensor x = Tensor::zeros({0, 16}, DType::kBF16, Device::kCpu),
               w = random_tensor({4, 16}, 2, DType::kF32);
  const Tensors results = run(x, w, Tensor::zeros({0, 4}, DType::kF32, Device::kCpu), Device::kCuda);
  EXPECT_EQ(results[0].shape(), Shape({0, 4}));
  for (const float g : results[2].to_vector<float>()) EXPECT_EQ(g, 0);
}

TEST_F(MixedLinear, Repeats) {
  const Tensor x = random_tensor({96, 72}, 1, DType::kBF16), w = random_tensor({64, 72}, 2, DType::kF32);
  const Tensor dy = random_tensor({96, 64}, 3, DType::kF32);
  const Tensors first = run(x, w, dy, Device::kCuda), again = run(x, w, dy, Device::kCuda);
  for (size_t i = 0; i < first.size(); ++i)
    EXPECT_EQ(std::memcmp(first[i].raw(), again[i].raw(), first[i].bytes()), 0) << i;
}

}  // namespace
}  // namespace switchyard::test
