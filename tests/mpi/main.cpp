// mpi_tests [messages]: GoogleTest on every rank of an MPI job: all ranks run all tests in the same order.
// Rank 0 reports as usual, the others only their failures; a failure on any rank fails the run on all. Long
// messages are read from the sender's memory, unless `messages` says otherwise.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>

#include "parallel/comm/make.h"
#include "tests/mpi/world.h"

namespace switchyard {
namespace {

Group& world() {
  static Group group;
  return group;
}

class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    std::printf("rank %d, %s.%s: %s\n%s:%d\n", world()->rank(), test->test_suite_name(), test->name(),
                result.summary(), result.file_name(), result.line_number());
  }
};

int run_tests() {
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world()->rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter);
  }
  int32_t failed = RUN_ALL_TESTS();
  world()->all_reduce(&failed, 1, DType::kI32, ReduceOp::kMax);
  return failed;
}

}  // namespace

const Group& mpi_world() { return world(); }

}  // namespace switchyard

int main(int argc, char** argv) {
  using namespace switchyard;
  testing::InitGoogleTest(&argc, argv);
  try {
    // A rank that leaves a test early must not keep the others for long.
    const bool messages = argc > 1 && argv[1] == std::string("messages");
    world() = make_world(
        {.timeout_seconds = 60, .node_copies = messages ? NodeCopies::kMessages : NodeCopies::kReads});
    const int failed = run_tests();
    world().reset();
    finalize_world(failed);
    return failed;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    abort_world(error.exit_code());
  }
}
