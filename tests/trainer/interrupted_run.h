// Runs of a small mixture that stop and go on, in folders of their own.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"

namespace switchyard::test {

inline constexpr const char* kInterrupted =
    "model { moe { capacity_factor: 0.8 jitter_eps: 0.05 bias_update_rate: 0.01 } } checkpoint { "
    "every_steps: 5 }";

inline std::string read_text(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

class InterruptedRun : public testing::Test {
 protected:
  InterruptedRun() { write_training_tokens(folder_ / "tokens"); }

  // Trains in folder RUN up to `steps` of a schedule for 20, as if it was interrupted there.
  Steps run(const std::string& name, Layout layout, int64_t steps, const std::string& changes = "",
            bool resume = true) {
    return train(config(steps, changes), layout, folder_ / name, resume);
  }
  Config config(int64_t steps, const std::string& changes = "") {
    Config config = small_config(folder_ / "tokens", {kInterrupted, changes});
    config.train.steps = steps;
    return config;
  }
  std::string checkpoint(const std::string& run, int64_t step) {
    return (std::filesystem::path(folder_ / run) / "checkpoints" /
            ("step_000000" + std::string(step < 10 ? "0" : "") + std::to_string(step)))
        .string();
  }
  // Flips a byte in the middle of the largest file.
  void damage(const std::string& checkpoint) {
    std::filesystem::path largest;
    uintmax_t most = 0;
    for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
      if (entry.file_size() > most) largest = entry.path(), most = entry.file_size();
    }
    std::fstream file(largest, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(most / 2));
    const char byte = static_cast<char>(~file.get());
    file.seekp(static_cast<std::streamoff>(most / 2));
    file.put(byte);
  }

  TemporaryFolder folder_;
};

}  // namespace switchyard::test
