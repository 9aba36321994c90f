#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>

#include "trainer/commands/commands.h"
#include "trainer/commands/exit_code.h"
#include "trainer/job/job.h"
#include "trainer/together.h"

namespace switchyard {

namespace {

// A wait that passed its deadline is reported by every rank that waits; the others are then given a moment to
// do so.
[[noreturn]] void leave_after_lost_peer(const std::exception& e) {
  const int code = report_and_exit_code(e);
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  abort_world(code);
}

int train(const TrainArgs& args, Config config, const Group& world, const LaunchInfo& launch) {
  try {
    TrainingJob job(std::move(config), world,
                    {.run_dir = args.run_dir,
                     .resume = args.resume != "never",
                     .local_rank = launch.local_rank,
                     .local_size = launch.local_size});
    job.run();
    return 0;
  } catch (const FailedTogether& e) {
    return report_and_exit_code(e, world->rank() == 0);
  } catch (const Error& e) {
    if (e.fault() == Fault::kPeer) leave_after_lost_peer(e);
    // All ranks see a loss that is not finite in the same step.
    if (e.fault() == Fault::kNonFinite) return report_and_exit_code(e, world->rank() == 0);
    const int code = report_and_exit_code(e);
    if (world->size() > 1) abort_world(code);
    return code;
  } catch (const std::exception& e) {
    const int code = report_and_exit_code(e);
    if (world->size() > 1) abort_world(code);
    return code;
  }
}

}  // namespace

int run_train(const TrainArgs& args) {
  catch_stop_signals();
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads the lines may leave; log.txt has them
  const LaunchInfo launch = launch_info();
  Config config;
  Group world;
  try {
    config = load_config(args.config, args.sets, args.merges);
  } catch (const std::exception& e) {
    return report_once(e, launch.rank);
  }
  try {
    world = make_world({.timeout_seconds = config.parallel.timeout_seconds});
  } catch (const std::exception& e) {
    return report_and_exit_code(e);  // each rank for itself: they have not found each other
  }
  const int code = train(args, config, world, launch);
  world.reset();
  finalize_world(code, stop_asked() ? 0.4 : 1.5);
  return code;
}

}  // namespace switchyard
