// Gradients filled with 2^rank and reduced: the sum tells exactly which ranks took part.
#include "parallel/data/reducer.h"

#include <gtest/gtest.h>

#include "core/ops.h"
#include "core/optim/adamw.h"
#include "parallel/collectives.h"
#include "parallel/data/shares.h"

namespace switchyard {
namespace {

constexpr int64_t kSize = 100;
constexpr int kParameters = 7;

// Dense and expert parameters in turn, all used by one objective.
struct Model {
  explicit Model(const SegmentOptions& options = {}) {
    for (int i = 0; i < kParameters; ++i) {
      vars.push_back(store.add({.name = "p" + std::to_string(i),
                                .shape = {kSize},
                                .pieces = {{"p" + std::to_string(i), 0, {kSize}}},
                                .dtype = DType::kF64,
                                .placement = i % 2 == 0 ? Placement::kReplicated : Placement::kExpert}));
    }
    store.materialize(Device::kCpu, 1, true, true, options);
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
  int64_t max_elements;  // of a segment
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "W " << c.world << ", EP " << c.expert << ", segments of " << c.max_elements;
}

class ReducerTest : public testing::TestWithParam<Case> {
 protected:
  struct Rank {
    Model& model;
    GradientReducer& reducer;
    const Mesh& mesh;
    int rank;
  };
  static void on_ranks(const std::function<void(const Rank&)>& body) {
    run_ranks(GetParam().world, [&](const Group& world) {
      const Mesh mesh = make_mesh(world, GetParam().expert, Device::kCpu);
      SegmentOptions options = segment_options(mesh);
      options.max_elements = GetParam().max_elements;
      Model model(options);
      GradientReducer reducer(model.store, mesh);
      body({model, reducer, mesh, world->rank()});
    });
  }
  // The ranks' parts, put together.
  static void expect_sums(const Rank& on, double times) {
    for (const Segment& s : on.model.store.segments())
      all_gather_in_place(s.grad, holders_of(s.placement, on.mesh).device);
    expect_gradients(on.model, times, on.rank, GetParam().world, GetParam().expert);
  }
};

TEST_P(ReducerTest, HooksReduceDuringTheLastPassOnly) {
  on_ranks([](const Rank& on) {
    for (int step = 0; step < 2; ++step) {
      on.model.pass(power(on.rank));
      on.reducer.arm();
      on.model.pass(power(on.rank));
      on.reducer.finish();
      expect_sums(on, 2);
      on.model.store.forget_grads();
    }
  });
}

TEST_P(ReducerTest, FinishReducesWhatNoHookAnnounced) {
  on_ranks([](const Rank& on) {
    on.model.pass(power(on.rank));
    on.reducer.arm();
    on.reducer.finish();
    expect_sums(on, 1);
  });
}

TEST_P(ReducerTest, ParametersWithoutAGradientInThePassDoNotHoldUpTheOthers) {
  on_ranks([](const Rank& on) {
    const Vars& vars = on.model.vars;
    on.model.pass(power(on.rank));
    on.reducer.arm();
    // Parameter 0 alone, and on odd ranks nothing at all.
    if (on.rank % 2 == 0) backward(add(vars[0], vars[0]), Tensor::zeros({kSize}, DType::kF64, Device::kCpu));
    on.reducer.finish();
    expect_sums(on, 1);
  });
}

TEST_P(ReducerTest, CountsTheBytesThatItHandsOver) {
  on_ranks([](const Rank& on) {
    const auto [world, expert, limit] = GetParam();
    int64_t bytes = 0;
    for (const Segment& s : on.model.store.segments()) {
      const int ranks = s.placement == Placement::kExpert ? world / expert : world;
      EXPECT_EQ(s.m.numel() * ranks, s.grad.numel());
      if (ranks > 1) bytes += s.grad.bytes();
    }
    EXPECT_EQ(on.reducer.bytes_per_step(), bytes);
    // Four replicated parameters and three of experts.
    EXPECT_GE(bytes, 8 * kSize * ((world > 1 ? 4 : 0) + (world > expert ? 3 : 0)));
  });
}

// An update of parts, gathered, is the update of the whole; and so are its moments.
TEST_P(ReducerTest, PartsMakeUpTheUpdate) {
  on_ranks([](const Rank& on) {
    Model whole;
    const Tensor clip = Tensor::from<double>({0.5}, {1});
    for (int64_t step = 1; step <= 3; ++step) {
      on.reducer.arm();
      on.model.pass(power(on.rank));
      on.reducer.finish();
      adamw_step(on.model.store, {}, 0.1, step, clip);
      gather_values(on.model.store, on.mesh);
      on.model.store.forget_grads();
      for (int i = 0; i < kParameters; ++i)
        whole.vars[i].grad().copy_from(Tensor::from(
            std::vector<double>(kSize, expected_sum(i, on.rank, GetParam().world, GetParam().expert)),
            {kSize}));
      adamw_step(whole.store, {}, 0.1, step, clip);
    }
    using Kind = ParameterStore::Kind;
    for (const Kind kind : {Kind::kValue, Kind::kM, Kind::kV}) {
      const auto runs = gather_state(on.model.store, kind, on.mesh);
      const auto expected = gather_state(whole.store, kind, on.mesh);  // of one rank: nothing to gather
      for (int i = 0; i < kParameters; ++i) {
        const Parameter &p = on.model.store.parameters()[i], &q = whole.store.parameters()[i];
        EXPECT_EQ(read_piece(runs[p.segment], p, p.spec.pieces[0]),
                  read_piece(expected[q.segment], q, q.spec.pieces[0]));
      }
    }
  });
}

// Ranks with more experts cut their segments elsewhere. After every parameter the ranks of an ep group exchange
// something: nobody may be in a reduction that another reaches only behind it.
TEST(Reducer, RanksOfUnevenExpertsDoNotWaitForEachOther) {
  run_ranks(6, [](const Group& world) {
    const Mesh mesh = make_mesh(world, 3, Device::kCpu, {.timeout_seconds = 20});
    SegmentOptions options = segment_options(mesh);
    options.max_elements = 4 * 128;
    ParameterStore store;
    Vars vars;
    for (int i = 0; i < 24; ++i) {
      const bool expert = i % 3 != 0;
      const Shape shape{128 * (expert ? 1 + mesh.ep.rank() : 1)};
      const std::string name = "p" + std::to_string(i);
      vars.push_back(store.add({.name = name,
                                .shape = shape,
                                .pieces = {{name, 0, shape}},
                                .dtype = DType::kF64,
                                .placement = expert ? Placement::kExpert : Placement::kReplicated}));
    }
    store.materialize(Device::kCpu, 1, true, true, options);
    GradientReducer reducer(store, mesh);
    reducer.arm();
    for (auto v = vars.rbegin(); v != vars.rend(); ++v) {
      backward(add(*v, *v), Tensor::from(std::vector<double>(v->shape().numel(), 1), v->shape()));
      mesh.ep.host->barrier();
    }
    reducer.finish();
    for (const Segment& s : store.segments()) {
      const Axis& holders = holders_of(s.placement, mesh);
      all_gather_in_place(s.grad, holders.device);
      for (const int i : s.parameters)
        EXPECT_EQ(vars[i].grad().to_vector<double>(),
                  std::vector<double>(vars[i].shape().numel(), 2.0 * holders.size()));
    }
  });
}

// Less than a parameter, two parameters, everything.
INSTANTIATE_TEST_SUITE_P(Layouts, ReducerTest,
                         testing::Values(Case{1, 1, 1}, Case{4, 1, 1}, Case{4, 2, 1}, Case{4, 4, 1},
                                         Case{4, 1, 230}, Case{4, 2, 230}, Case{4, 4, 230},
                                         Case{4, 1, 1 << 20}, Case{4, 2, 1 << 20}, Case{4, 4, 1 << 20},
                                         Case{3, 3, 230}));

TEST(Reducer, LeavesNoHookBehind) {
  run_ranks(2, [](const Group& world) {
    const Mesh mesh = make_mesh(world, 1, Device::kCpu);
    Model model(segment_options(mesh));
    { GradientReducer(model.store, mesh).arm(); }
    model.pass(1);
    expect_gradients(model, 1, 0, 1, 1);
  });
}

}  // namespace
}  // namespace switchyard
