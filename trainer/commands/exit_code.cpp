#include "trainer/commands/exit_code.h"

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "kernels/check.h"
#include "trainer/together.h"

namespace switchyard {

int exit_code_of(const std::exception& error) { return as_error(error).exit_code(); }

int report_and_exit_code(const std::exception& error, bool speak) {
  if (speak) {
    // One write, so that ranks' lines do not mix.
    const std::string line = concat("switchyard: ", as_error(error).what(), "\n");
    std::fflush(stdout);
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
  }
  return exit_code_of(error);
}

int report_once(const std::exception& error, int rank) {
  if (rank == 0) return report_and_exit_code(error);
  // Rank 0 has most likely failed for the same reason, and its launcher ends this process. If not, it is alone.
  constexpr auto kPatience = std::chrono::seconds(5);
  const auto begin = std::chrono::steady_clock::now();
  while (!stop_asked() && std::chrono::steady_clock::now() - begin < kPatience)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const Error known = as_error(error);
  return report_and_exit_code(Error(known.fault(), concat("rank ", rank, ": ", known.what())), !stop_asked());
}

}  // namespace switchyard
