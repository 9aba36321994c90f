#include "tests/fuzz/watch.h"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <new>

#include "kernels/check.h"

namespace {

std::atomic<size_t> g_held = 0, g_peak = 0;

void* counted(void* memory) noexcept {
  if (memory == nullptr) return nullptr;
  const size_t held = g_held += malloc_usable_size(memory);
  size_t peak = g_peak;
  while (held > peak && !g_peak.compare_exchange_weak(peak, held)) {
  }
  return memory;
}

void* counted_or_throw(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return counted(memory);
}

void release(void* memory) noexcept {
  if (memory != nullptr) g_held -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

// Every allocation of the program's own goes through these.
void* operator new(size_t size) { return counted_or_throw(std::malloc(std::max<size_t>(size, 1))); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return counted(std::malloc(std::max<size_t>(size, 1)));
}
void* operator new(size_t size, std::align_val_t align) {
  const auto step = static_cast<size_t>(align);
  return counted_or_throw(std::aligned_alloc(step, (std::max<size_t>(size, 1) + step - 1) / step * step));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { release(memory); }

// There under AddressSanitizer only: it ends the process by itself.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace switchyard::fuzz {
namespace {

std::array<char, 4096> g_dump_path{};
const std::string* g_input = nullptr;

void dump_input() {
  if (g_input == nullptr) return;
  const int file = ::open(g_dump_path.data(), O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (file >= 0 && ::write(file, g_input->data(), g_input->size()) >= 0) ::close(file);
}

void on_crash(int signal) {
  dump_input();
  constexpr char kText[] = "fuzz: a crash, or no end; the input is in the file named at the start\n";
  if (::write(STDERR_FILENO, kText, sizeof kText - 1) >= 0) std::signal(signal, SIG_DFL);
  ::raise(signal);
}

}  // namespace

// A JSON value takes some 50 times its text; the rest is what tables and buffers of fixed size take.
size_t allowed_bytes(size_t input) { return (24 << 20) + 400 * input; }

void dump_crashes_to(const std::string& path) {
  CHECK(path.size() < g_dump_path.size(), path);
  std::copy(path.begin(), path.end(), g_dump_path.begin());
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) std::signal(signal, on_crash);
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(dump_input);
}

Outcome watch(const std::string& input, const std::function<void()>& read) {
  Outcome outcome;
  g_input = &input;
  const size_t before = g_held;
  g_peak = before;
  ::alarm(kAllowedSeconds);
  try {
    read();
  } catch (const Error& error) {
    outcome.refused = true;
    outcome.message = error.what();
    const bool expected = error.fault() == Fault::kData || error.fault() == Fault::kUsage;
    if (!expected) outcome.fault = concat("no refusal but a failure: ", error.what());
  } catch (const std::exception& error) {
    outcome.fault = concat("no refusal but an exception: ", error.what());
  }
  ::alarm(0);
  g_input = nullptr;
  outcome.peak = g_peak - before;
  if (outcome.peak > allowed_bytes(input.size())) {
    outcome.fault = concat(outcome.peak, " bytes held for an input of ", input.size(), " bytes");
  }
  return outcome;
}

}  // namespace switchyard::fuzz
