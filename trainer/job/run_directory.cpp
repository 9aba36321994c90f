#include "trainer/job/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "trainer/files/files.h"

namespace switchyard {

namespace {

std::string host_name() {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return host;
}

std::string first_line(const std::string& path) {
  std::string line;
  std::getline(std::ifstream(path), line);
  return line;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& root) {
  const std::string path = root / ".lock";
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) fail_writing(path, errno);
  if (flock(file_, LOCK_EX | LOCK_NB) == 0) {
    held_ = true;
    if (ftruncate(file_, 0) == 0) dprintf(file_, "process %d on %s\n", getpid(), host_name().c_str());
    return;
  }
  if (errno != EWOULDBLOCK) return;
  const std::string owner = first_line(path);
  close(file_);
  fail(Fault::kUsage, root.string(), ": another run is writing here", owner.empty() ? "" : " (", owner,
       owner.empty() ? "" : ")", "; wait for its end, or choose another --run-dir");
}

RunLock::~RunLock() { close(file_); }

void RunDirectory::create() const {
  for (const auto& folder : {root, checkpoints(), samples(), exports()}) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error)
      fail(error == std::errc::no_space_on_device ? Fault::kResource : Fault::kUsage, folder.string(), ": ",
           error.message());
  }
}

std::string environment_json(const Config& config, int world) {
  const std::time_t now = std::time(nullptr);
  char started[32] = {};
  std::strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  nlohmann::ordered_json json{{"host", host_name()},
                              {"started", started},
                              {"world_size", world},
                              {"launcher", launch_info().launcher},
                              {"device", name_of(config.device)},
                              {"cores", std::thread::hardware_concurrency()},
                              {"compiler", __VERSION__},
                              {"cuda", kHasCuda}};
  return json.dump(2) + "\n";
}

}  // namespace switchyard
