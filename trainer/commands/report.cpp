#include "trainer/commands/report.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "kernels/check.h"

namespace switchyard {
namespace {

bool is_memory(const std::exception& error) {
  // length_error: a container asked for more than there can be.
  return dynamic_cast<const std::bad_alloc*>(&error) || dynamic_cast<const std::length_error*>(&error);
}

bool is_disk(const std::exception& error) {
  if (dynamic_cast<const std::filesystem::filesystem_error*>(&error)) return true;
  const auto* system = dynamic_cast<const std::system_error*>(&error);
  return system &&
         (system->code() == std::errc::no_space_on_device || system->code() == std::errc::not_enough_memory ||
          system->code() == std::errc::file_too_large || system->code() == std::errc::io_error);
}

std::string message_of(const std::exception& error) {
  if (is_memory(error)) return std::string("out of memory (") + error.what() + ")";
  return error.what();
}

}  // namespace

int exit_code_of(const std::exception& error) {
  if (const auto* ours = dynamic_cast<const Error*>(&error)) return ours->exit_code();
  return static_cast<int>(is_memory(error) || is_disk(error) ? Fault::kResource : Fault::kInternal);
}

int report_and_exit_code(const std::exception& error, bool speak) {
  if (speak) {
    // One write, so that ranks' lines do not mix.
    const std::string line = concat("switchyard: ", message_of(error), "\n");
    std::fflush(stdout);
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
  }
  return exit_code_of(error);
}

int report_once(const std::exception& error, int rank) {
  if (rank != 0) std::this_thread::sleep_for(std::chrono::seconds(1));
  return report_and_exit_code(error, rank == 0);
}

}  // namespace switchyard
