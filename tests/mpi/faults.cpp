// A job in which something goes wrong, for faults.sh: `mpi_faults killed|hang|stop`.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "parallel/comm/make.h"

namespace {

volatile std::sig_atomic_t g_stop = 0;

void run(const switchyard::Group& world, const std::string& fault) {
  int32_t stop = 0;
  if (fault == "hang" && world->rank() == 0) pause();
  if (fault == "stop") std::signal(SIGTERM, [](int) { g_stop = 1; });
  world->barrier();
  if (world->rank() == 0) {
    std::puts("ready");
    std::fflush(stdout);
  }
  if (fault == "killed" && world->rank() == 1) std::raise(SIGKILL);
  while (stop == 0) {
    usleep(10000);
    stop = g_stop;
    world->all_reduce(&stop, 1, switchyard::DType::kI32, switchyard::ReduceOp::kMax);
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace switchyard;
  if (argc != 2) return 2;
  try {
    const Group world = make_world({.timeout_seconds = argv[1] == std::string("hang") ? 0.5 : 60});
    run(world, argv[1]);
    std::printf("rank %d stopped\n", world->rank());
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    abort_world(error.exit_code());
  }
  finalize_world(0, 0.4);
}
