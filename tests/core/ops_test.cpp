// Every op of the catalogue: gradients in double, and float32 beside double.
#include <gtest/gtest.h>

#include "tests/support/gradcheck.h"
#include "tests/support/op_cases.h"

namespace switchyard::test {

namespace {

class OpTest : public testing::TestWithParam<OpCase> {};

Tensors inputs_of(const OpCase& op, DType dtype) {
  Tensors inputs;
  for (size_t i = 0; i < op.inputs.size(); ++i) inputs.push_back(random_tensor(op.inputs[i], 7 + i, dtype));
  return inputs;
}

Var call(const OpCase& op, DType dtype) {
  Vars leaves;
  for (const Tensor& input : inputs_of(op, dtype)) leaves.emplace_back(input, true);
  return op.call(leaves);
}

TEST_P(OpTest, GradientMatchesDifferences) {
  const OpCase& op = GetParam();
  EXPECT_LT(gradient_error(op.call, inputs_of(op, DType::kF64)), op.tolerance);
}

TEST_P(OpTest, FloatMatchesDouble) {
  const OpCase& op = GetParam();
  EXPECT_LT(relative_error(call(op, DType::kF32).value(), call(op, DType::kF64).value()), 3e-6);
}

TEST_P(OpTest, Bf16IsNearDouble) {
  const OpCase& op = GetParam();
  if (op.wide) GTEST_SKIP() << "router scores and losses are never bf16";
  EXPECT_LT(relative_error(call(op, DType::kBF16).value(), call(op, DType::kF64).value()), 2e-2);
}

INSTANTIATE_TEST_SUITE_P(Catalogue, OpTest, testing::ValuesIn(op_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace

}  // namespace switchyard::test
