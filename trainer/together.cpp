#include "trainer/together.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <system_error>

#include "trainer/files/resource_error.h"

namespace switchyard {

namespace {

std::atomic<bool> g_stop_asked = false;
static_assert(std::atomic<bool>::is_always_lock_free, "the signal handler writes it");

// A second Ctrl-C does not wait for the step.
extern "C" void on_stop_signal(int signal) {
  if (signal == SIGINT) {
    const int before = errno;  // of what the signal interrupts
    constexpr char kAnswer[] = "switchyard: stopping after this step; once more, and at once\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, kAnswer, sizeof kAnswer - 1);
    std::signal(SIGINT, SIG_DFL);
    errno = before;
  }
  g_stop_asked = true;
}

}  // namespace

Error as_error(const std::exception& e) {
  if (const auto* error = dynamic_cast<const Error*>(&e)) return *error;
  // length_error: a container asked for more than there can be.
  if (dynamic_cast<const std::bad_alloc*>(&e) || dynamic_cast<const std::length_error*>(&e)) {
    return Error(Fault::kResource, concat("out of memory (", e.what(), ")"));
  }
  if (const auto* system = dynamic_cast<const std::system_error*>(&e)) {
    const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&e);
    const std::string message =
        file ? concat(file->path1().string(), ": ", file->code().message()) : std::string(e.what());
    return Error(is_resource_error(system->code().value()) ? Fault::kResource : Fault::kUsage, message);
  }
  return Error(Fault::kInternal, e.what());
}

void together(const Group& world, const std::function<void()>& f) {
  Fault fault = Fault::kInternal;
  std::string message;
  bool failed = false;
  try {
    f();
  } catch (const std::exception& e) {
    const Error error = as_error(e);
    fault = error.fault();
    message = error.what();
    failed = true;
  }
  int64_t first = failed ? world->rank() : world->size();
  world->all_reduce(&first, 1, DType::kI64, ReduceOp::kMin);
  if (first == world->size()) return;
  int64_t header[2] = {static_cast<int64_t>(fault), static_cast<int64_t>(message.size())};
  world->broadcast(header, 2, DType::kI64, static_cast<int>(first));
  message.resize(header[1]);
  world->broadcast(message.data(), header[1], DType::kU8, static_cast<int>(first));
  throw FailedTogether(static_cast<Fault>(header[0]), message);
}

bool any_rank(Communicator& world, const std::function<bool()>& says) {
  int64_t votes = says && says() ? 1 : 0;
  if (says) world.all_reduce(&votes, 1, DType::kI64);
  return votes > 0;
}

std::vector<std::string> gather_texts(const Group& world, const std::string& text) {
  const int ranks = world->size();
  const auto size = static_cast<int64_t>(text.size());
  std::vector<int64_t> sizes(ranks);
  world->all_gather(&size, sizes.data(), 1, DType::kI64);
  std::vector<std::string> texts(ranks);
  for (int r = 0; r < ranks; ++r) {
    texts[r] = r == world->rank() ? text : std::string(sizes[r], '\0');
    world->broadcast(texts[r].data(), sizes[r], DType::kU8, r);
  }
  return texts;
}

std::string text_of_root(Communicator& world, const std::string& text) {
  auto size = static_cast<int64_t>(text.size());
  world.broadcast(&size, 1, DType::kI64, 0);
  std::string all = world.rank() == 0 ? text : std::string(size, '\0');
  world.broadcast(all.data(), size, DType::kU8, 0);
  return all;
}

void warn(const std::string& message) {
  // One write, so that ranks' lines do not mix.
  const std::string line = concat("switchyard: warning: ", message, "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void catch_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

bool stop_asked() { return g_stop_asked; }

}  // namespace switchyard
