// Gradients filled with 2^rank and reduced: the sum tells exactly which ranks took part.
#include "parallel/data/reducer.h"

#include <gtest/gtest.h>

#include "core/ops.h"

namespace switchyard {
namespace {

constexpr int64_t kSize = 100;
constexpr int kParameters = 7;

// Dense and expert parameters in turn, all used by one objective.
struct Model {
  explicit Model(DType dtype = DType::kF64) {
    for (int i = 0; i < kParameters; ++i) {
      vars.push_back(store.add({.name = "p" + std::to_string(i),
                                .shape = {kSize},
                                .pieces = {{"p" + std::to_string(i), 0, {kSize}}},
                                .dtype = dtype,
                                .placement = i % 2 == 0 ? Placement::kReplicated : Placement::kExpert}));
    }
    store.materialize(Device::kCpu, 1, true);
  }
  // One pass that adds `each` to every gradient.
  void pass(double each) const {
    Var sum = vars[0];
    for (int i = 1; i < kParameters; ++i) sum = add(sum, vars[i]);
    backward(sum, Tensor::from(std::vector<double>(kSize, each), {kSize}));
  }
  ParameterStore store;
  Vars vars;
};

double power(int rank) { return static_cast<double>(1 << rank); }

// The sum over the ranks that share parameter i with `rank`.
double expected_sum(int i, int rank, int world, int expert) {
  double sum = 0;
  for (int r = 0; r < world; ++r) {
    if (i % 2 == 0 || r % expert == rank % expert) sum += power(r);
  }
  return sum;
}

void expect_gradients(const Model& model, double times, int rank, int world, int expert) {
  for (int i = 0; i < kParameters; ++i) {
    const std::vector<double> expected(kSize, times * expected_sum(i, rank, world, expert));
    EXPECT_EQ(model.vars[i].grad().to_vector<double>(), expected) << "parameter " << i << " on rank " << rank;
  }
}

struct Case {
  int world, expert;
  int64_t bucket_bytes;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "W " << c.world << ", EP " << c.expert << ", buckets of " << c.bucket_bytes << " bytes";
}

class ReducerTest : public testing::TestWithParam<Case> {
 protected:
  static void on_ranks(const std::function<void(Model&, GradientReducer&, int rank)>& body) {
    run_ranks(GetParam().world, [&](const Group& world) {
      const Mesh mesh = make_mesh(world, GetParam().expert, Device::kCpu);
      Model model;
      GradientReducer reducer(model.store, mesh, GetParam().bucket_bytes);
      body(model, reducer, world->rank());
    });
  }
  static void expect_sums(const Model& model, double times, int rank) {
    expect_gradients(model, times, rank, GetParam().world, GetParam().expert);
  }
};

TEST_P(ReducerTest, HooksReduceDuringTheLastPassOnly) {
  on_ranks([](Model& model, GradientReducer& reducer, int rank) {
    for (int step = 0; step < 2; ++step) {
      model.pass(power(rank));
      reducer.arm();
      model.pass(power(rank));
      reducer.finish();
      expect_sums(model, 2, rank);
      model.store.forget_grads();
    }
  });
}

TEST_P(ReducerTest, FinishReducesWhatNoHookAnnounced) {
  on_ranks([](Model& model, GradientReducer& reducer, int rank) {
    model.pass(power(rank));
    reducer.arm();
    reducer.finish();
    expect_sums(model, 1, rank);
  });
}

TEST_P(ReducerTest, ParametersWithoutAGradientInThePassDoNotHoldUpTheOthers) {
  on_ranks([](Model& model, GradientReducer& reducer, int rank) {
    model.pass(power(rank));
    reducer.arm();
    // Parameter 0 alone, and on odd ranks nothing at all.
    if (rank % 2 == 0)
      backward(add(model.vars[0], model.vars[0]), Tensor::zeros({kSize}, DType::kF64, Device::kCpu));
    reducer.finish();
    expect_sums(model, 1, rank);
  });
}

TEST_P(ReducerTest, CountsTheBytesThatItHandsOver) {
  on_ranks([](Model&, GradientReducer& reducer, int) {
    const auto [world, expert, bucket] = GetParam();
    const int64_t padded = 128, last = kSize;  // a parameter starts on a multiple of 64 elements
    const int64_t dense = 3 * padded + last, experts = 2 * padded + last;
    const int64_t least = 8 * ((world > 1 ? dense : 0) + (world > expert ? experts : 0));
    EXPECT_GE(reducer.bytes_per_step(), least);
    EXPECT_LE(reducer.bytes_per_step(), least + 8 * 2 * 64);
  });
}

// Less than a parameter, two parameters, everything.
INSTANTIATE_TEST_SUITE_P(Layouts, ReducerTest,
                         testing::Values(Case{1, 1, 1}, Case{4, 1, 1}, Case{4, 2, 1}, Case{4, 4, 1},
                                         Case{4, 1, 1600}, Case{4, 2, 1600}, Case{4, 4, 1600},
                                         Case{4, 1, 1 << 20}, Case{4, 2, 1 << 20}, Case{4, 4, 1 << 20},
                                         Case{3, 3, 1600}));

TEST(Reducer, LeavesNoHookBehind) {
  run_ranks(2, [](const Group& world) {
    const Mesh mesh = make_mesh(world, 1, Device::kCpu);
    Model model;
    { GradientReducer(model.store, mesh, 1).arm(); }
    model.pass(1);
    expect_gradients(model, 1, 0, 1, 1);
  });
}

}  // namespace
}  // namespace switchyard
