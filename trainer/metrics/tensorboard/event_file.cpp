#include "trainer/metrics/tensorboard/event_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <chrono>

#include "trainer/files/files.h"
#include "trainer/metrics/tensorboard/event.pb.h"
#include "trainer/metrics/tensorboard/tf_record.h"

namespace switchyard {
namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Readers take the files of a folder in order of their names, which start with a time in seconds.
int64_t time_behind(const fs::path& folder) {
  auto time = static_cast<int64_t>(now());
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    int64_t other = 0;
    if (!name.starts_with(kPrefix)) continue;
    const char* digits = name.data() + kPrefix.size();
    if (std::from_chars(digits, name.data() + name.size(), other).ec != std::errc()) continue;
    time = std::max(time, other + 1);
  }
  return time;
}

std::string host_name() {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return host;
}

}  // namespace

EventFile::EventFile(const fs::path& folder, int64_t first_step) {
  make_directories(folder);
  path_ = folder / fmt::format("{}{:010}.{}.{}.0", kPrefix, time_behind(folder), host_name(), getpid());
  out_.open(path_, std::ios::binary);
  tensorboard::Event version, start;
  version.set_file_version("brain.Event:2");
  append(version);
  start.set_step(first_step);
  start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
  append(start);
}

void EventFile::write(int64_t step, tensorboard::Summary summary) {
  tensorboard::Event event;
  event.set_step(step);
  *event.mutable_summary() = std::move(summary);
  append(event);
}

void EventFile::append(tensorboard::Event& event) {
  event.set_wall_time(now());
  out_ << tf_record(event.SerializeAsString()) << std::flush;
  if (!out_) fail(Fault::kResource, path_.string(), ": cannot be written (disk full?)");
}

}  // namespace switchyard
