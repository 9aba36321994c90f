// runs/NAME/ and what lies in it.
#pragma once

#include <filesystem>
#include <string>

#include "trainer/config.h"

namespace switchyard {

struct RunDirectory {
  std::filesystem::path root;

  std::filesystem::path config() const { return root / "config.txtpb"; }
  std::filesystem::path env() const { return root / "env.json"; }
  std::filesystem::path log() const { return root / "log.txt"; }
  std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path evaluations() const { return root / "eval.jsonl"; }
  std::filesystem::path tensorboard() const { return root / "tb"; }
  std::filesystem::path checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path samples() const { return root / "samples"; }
  std::filesystem::path exports() const { return root / "export"; }  // for the user's

  void create() const;
};

// Keeps a second run out of a run's directory: a lock on ROOT/.lock, which ends with the process, however
// that ends.
class RunLock {
 public:
  // Error{kUsage} where another process has it.
  explicit RunLock(const std::filesystem::path& root);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  bool held() const { return held_; }  // false: the file system has no locks

 private:
  int file_ = -1;
  bool held_ = false;
};

// Of this start, as JSON: host, time, ranks, launcher, device, cores, compiler, whether CUDA is built in.
std::string environment_json(const Config& config, int world);

}  // namespace switchyard
