#include "trainer/job/run_directory.h"

#include <unistd.h>

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

namespace switchyard {

void RunDirectory::create() const {
  for (const auto& folder : {root, checkpoints(), samples()}) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) fail(error == std::errc::no_space_on_device ? Fault::kResource : Fault::kUsage, folder.string(), ": ", error.message());
  }
}

std::string environment_json(const Config& config, int world) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  const std::time_t now = std::time(nullptr);
  char started[32] = {};
  std::strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  nlohmann::ordered_json json{{"host", host},
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
