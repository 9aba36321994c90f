// Updates that wait for the product that reads the parameters next.
#include <gtest/gtest.h>
#include <omp.h>

#include <functional>

#include "core/nn/parameters.h"
#include "core/ops.h"
#include "core/optim/adamw.h"
#include "kernels/grouped_matmul.h"
#include "tests/support/gradcheck.h"

namespace switchyard {
namespace {

Tensor random(const Shape& shape, uint64_t seed) { return test::random_tensor(shape, seed, DType::kF32); }

// Two experts of many rows, trained with so many threads; with one alone updates wait.
struct Experts {
  explicit Experts(int threads) : threads_before(omp_get_max_threads()) {
    omp_set_num_threads(threads);
    w = store.add({.name = "w",
                   .shape = {2, 40, 64},
                   .pieces = {{"w", 0, {2, 40, 64}}},
                   .placement = Placement::kExpert,
                   .stddev = 1});
    store.materialize(Device::kCpu, 1, true, true, {});
  }
  ~Experts() { omp_set_num_threads(threads_before); }

  Var forward(unsigned seed) const { return grouped_linear(Var(random({400, 64}, seed), true), {w}, groups); }
  void step(int64_t step) {
    backward(forward(static_cast<unsigned>(step)), random({400, 40}, 9));
    adamw_step(store, {}, 1e-2, step, Tensor::from<float>({0.5F}, {1}));
    store.forget_grads();
  }
  std::vector<float> waiting() const {
    return store.segments_before_late_updates()[0].value.to_vector<float>();
  }
  std::vector<float> value() const { return store.segments()[0].value.to_vector<float>(); }
  std::vector<float> moments() const { return store.segments()[0].v.to_vector<float>(); }

  const int threads_before;
  const std::vector<int64_t> offsets{0, 150, 400};
  const RowGroups groups{Tensor::from<int64_t>(offsets, {3}),
                         std::make_shared<const std::vector<int64_t>>(offsets)};
  ParameterStore store;
  Var w;
};

class LateUpdates : public testing::Test {
  void SetUp() override {
    if (!kernels::sums_squares<float>(Cpu{})) GTEST_SKIP() << "this processor's products see to no updates";
  }
};

TEST_F(LateUpdates, AreThereForWhoeverAsks) {
  std::vector<float> start, expected;
  {
    Experts experts(2);
    start = experts.waiting();
    experts.step(1);
    expected = experts.waiting();
    EXPECT_NE(expected, start) << "with two threads nothing waits";
  }
  Experts experts(1);
  experts.step(1);
  EXPECT_EQ(experts.waiting(), start);
  EXPECT_EQ(experts.value(), expected);
  experts.step(2);
  EXPECT_EQ(experts.waiting(), expected);
  EXPECT_NE(experts.w.value().to_vector<float>(), expected);
}

TEST_F(LateUpdates, TrainWithTheBitsOfThoseThatDoNotWait) {
  std::vector<float> values, moments, outputs;
  {
    Experts experts(2);
    for (int64_t step = 1; step <= 4; ++step) experts.step(step);
    outputs = experts.forward(7).value().to_vector<float>();
    values = experts.value(), moments = experts.moments();
  }
  Experts experts(1);
  for (int64_t step = 1; step <= 4; ++step) experts.step(step);
  EXPECT_EQ(experts.forward(7).value().to_vector<float>(), outputs);
  EXPECT_EQ(experts.waiting(), values) << "the product saw to it";
  EXPECT_EQ(experts.moments(), moments);
}

// Copies of an expert go to other ranks before its product.
TEST_F(LateUpdates, OfOtherRowsGoOnWaiting) {
  std::vector<float> expected;
  {
    Experts experts(2);
    for (int64_t step = 1; step <= 2; ++step) experts.step(step);
    expected = experts.value();
  }
  Experts experts(1);
  experts.step(1);
  const std::vector<float> start = experts.waiting();
  EXPECT_NE(experts.w.value_of_rows({1}).rows(1, 1).to_vector<float>(),
            std::vector<float>(start.begin() + 40 * 64, start.end()));
  EXPECT_EQ(experts.w.value_of_rows({1}).rows(0, 1).to_vector<float>(),
            std::vector<float>(start.begin(), start.begin() + 40 * 64));
  experts.step(2);
  EXPECT_EQ(experts.value(), expected);
}

// Who changes the gradient or updates again without having read the parameters.
TEST_F(LateUpdates, ComeBeforeTheirGradientChanges) {
  Experts expected(1);
  expected.step(1);
  const std::vector<float> value = expected.value();
  for (const auto& change : std::vector<std::function<void(Experts&)>>{
           [](Experts& e) { e.store.settle_grads(); },
           [](Experts& e) {
             e.w.set_grad(Tensor::zeros({2, 40, 64}, DType::kF32, Device::kCpu));
           },
           [](Experts& e) { e.w.update_later(nullptr); }}) {
    Experts experts(1);
    experts.step(1);
    EXPECT_NE(experts.waiting(), value);
    change(experts);
    EXPECT_EQ(experts.waiting(), value);
  }
}

}  // namespace
}  // namespace switchyard
