// Checkpoints: round trips, every kind of damage named, the newest intact one found.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "tests/trainer/temporary_folder.h"
#include "trainer/checkpoint/runs.h"

namespace switchyard {
namespace {

class Checkpoints : public ::testing::Test {
 protected:
  Checkpoints() { fs::create_directory(root_); }

  // Two ranks' shards of a step; rank 1 writes its adam moments only.
  void write(int64_t step) {
    const std::vector<float> weight = {static_cast<float>(step), -1.5f, 0, 3, 4, 1e-40f};
    const std::vector<int64_t> counts = {7, -8};
    CheckpointWriter first(step_directory(root_, step), step, 0, 2);
    CheckpointWriter second(step_directory(root_, step), step, 1, 2);
    const NamedTensor weights[] = {{"w", DType::kF32, {3, 2}, weight.data()},
                                   {"scalar", DType::kF32, {}, weight.data()},
                                   {"empty", DType::kF32, {0, 4}, nullptr}};
    const NamedTensor moments[] = {{"adam_m.w", DType::kF32, {3, 2}, weight.data()},
                                   {"counts", DType::kI64, {2}, counts.data()}};
    const std::string shards[] = {first.write_shard("weights", weights),
                                  second.write_shard("optimizer", moments),
                                  second.write_shard("weights", std::span<const NamedTensor>())};
    first.finish(shards, {{"model.txtpb", "hidden_size: 3\n"}, {"empty.json", ""}});
  }

  void keep(int64_t step, int64_t keep_last = 0) {
    write(step);
    publish(root_, step, keep_last, warn_);
  }

  fs::path dir(int64_t step) const { return step_directory(root_, step); }

  std::optional<fs::path> newest() {
    warnings_.clear();
    return find_newest(root_, warn_);
  }

  std::string error_of(const std::function<void()>& action, Fault fault = Fault::kData) {
    try {
      action();
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), fault) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return "";
  }

  static void flip_byte(const fs::path& path, int64_t at) {
    std::string bytes = read_file(path);
    ASSERT_LT(at, static_cast<int64_t>(bytes.size()));
    bytes[static_cast<size_t>(at)] = static_cast<char>(bytes[static_cast<size_t>(at)] ^ 1);
    std::ofstream(path, std::ios::binary) << bytes;
  }

  TemporaryFolder folder_;
  const fs::path root_ = folder_ / "checkpoints";
  std::vector<std::string> warnings_;
  const Warn warn_ = [this](const std::string& message) { warnings_.push_back(message); };
};

TEST_F(Checkpoints, ReadBackTheBitsOfEveryTensorAndText) {
  write(12);
  CheckpointReader reader(dir(12), Verify::kAll);
  EXPECT_EQ(reader.step(), 12);
  EXPECT_EQ(reader.text("model.txtpb"), "hidden_size: 3\n");
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"adam_m.w", "counts", "empty", "scalar", "w"}));
  EXPECT_EQ(reader.names("adam_m."), std::vector<std::string>{"adam_m.w"});
  std::vector<float> w(6);
  reader.read("w", w.data(), DType::kF32);
  EXPECT_EQ(w, (std::vector<float>{12, -1.5f, 0, 3, 4, 1e-40f}));
  std::vector<int64_t> counts(2);
  reader.read("counts", counts.data(), DType::kI64);
  EXPECT_EQ(counts, (std::vector<int64_t>{7, -8}));
}

TEST_F(Checkpoints, TensorsAreConverted) {
  write(1);
  CheckpointReader reader(dir(1));
  std::vector<double> w(6);
  reader.read("w", w.data(), DType::kF64);
  EXPECT_EQ(w, (std::vector<double>{1, -1.5, 0, 3, 4, double{1e-40f}}));
  reader.read("empty", nullptr, DType::kF32);
}

TEST_F(Checkpoints, AnUnknownTensorIsNamed) {
  write(1);
  CheckpointReader reader(dir(1));
  EXPECT_NE(error_of([&] { reader.entry("v"); }).find("\"v\""), std::string::npos);
  float unused = 0;
  EXPECT_NE(error_of([&] { reader.read("counts", &unused, DType::kF32); }).find("I64"), std::string::npos);
}

TEST_F(Checkpoints, EveryFlippedByteIsFoundAndItsFileNamed) {
  write(5);
  for (const auto& entry : fs::directory_iterator(dir(5))) {
    const auto size = static_cast<int64_t>(fs::file_size(entry));
    const int64_t stride = std::max<int64_t>(1, size / 97);
    for (int64_t at = 0; at < size; at += stride) {
      flip_byte(entry.path(), at);
      const std::string message = error_of([&] { CheckpointReader(dir(5), Verify::kAll); });
      EXPECT_NE(message.find(entry.path().filename().string()), std::string::npos) << at << ": " << message;
      flip_byte(entry.path(), at);
    }
  }
  CheckpointReader(dir(5), Verify::kAll);
}

TEST_F(Checkpoints, EveryTruncationIsFoundOnOpening) {
  write(5);
  for (const auto& entry : fs::directory_iterator(dir(5))) {
    const std::string bytes = read_file(entry.path());
    for (size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 23) {
      fs::resize_file(entry.path(), size);
      const std::string message = error_of([&] { CheckpointReader{dir(5)}; });
      EXPECT_NE(message.find(entry.path().filename().string()), std::string::npos) << message;
      std::ofstream(entry.path(), std::ios::binary) << bytes;
    }
  }
}

TEST_F(Checkpoints, DamageIsFoundWhenItIsReadAndNotBefore) {
  write(5);
  flip_byte(dir(5) / "optimizer-00001-of-00002.safetensors", 200);
  CheckpointReader reader(dir(5));
  float value = 0;
  reader.read("scalar", &value, DType::kF32);
  EXPECT_EQ(value, 5);
  EXPECT_NE(error_of([&] { reader.bytes("counts"); }).find("optimizer-00001"), std::string::npos);
}

TEST_F(Checkpoints, MissingAndForeignFilesAreNamed) {
  for (const char* name : {"manifest.json", "model.txtpb", "weights-00000-of-00002.safetensors"}) {
    write(5);
    fs::remove(dir(5) / name);
    EXPECT_NE(error_of([&] { CheckpointReader{dir(5)}; }).find(name), std::string::npos);
  }
  write(5);
  std::ofstream(dir(5) / "extra.txt") << "x";
  EXPECT_NE(error_of([&] { CheckpointReader{dir(5)}; }).find("extra.txt"), std::string::npos);
  error_of([&] { CheckpointReader{root_ / "nowhere"}; });
}

TEST_F(Checkpoints, AManifestThatLeavesItsDirectoryIsRefused) {
  Manifest manifest;
  manifest.files["../secret"] = {};
  error_of([&] { manifest_from_text(to_text(manifest), "manifest.json"); });
  manifest.files.clear();
  manifest.tensors["w"] = {.file = "unlisted", .dtype = FileDType::kF32, .shape = {1}};
  error_of([&] { manifest_from_text(to_text(manifest), "manifest.json"); });
}

TEST_F(Checkpoints, UnfinishedWritersLeaveNoCheckpoint) {
  const float value = 1;
  const NamedTensor tensors[] = {{"w", DType::kF32, {}, &value}};
  { CheckpointWriter(root_ / "a" / "b" / "step_00000001", 1).write_shard("weights", tensors); }
  EXPECT_TRUE(fs::is_empty(root_));
  { CheckpointWriter(dir(3), 3, 0, 2).write_shard("weights", tensors); }  // killed with others at work
  EXPECT_EQ(newest(), std::nullopt);
  remove_leftovers(root_);
  EXPECT_TRUE(fs::is_empty(root_));
}

TEST_F(Checkpoints, WhatAnInterruptedAttemptLeftDoesNotEnterTheNext) {
  fs::create_directories(root_ / ".step_00000007.tmp");
  std::ofstream(root_ / ".step_00000007.tmp" / "weights-00003-of-00004.safetensors") << "old";
  write(7);
  CheckpointReader(dir(7), Verify::kAll);
}

TEST_F(Checkpoints, AFullDiskIsAResourceFaultAndLeavesTheOthersAlone) {
  keep(1);
  const std::vector<float> large(1 << 19);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{1 << 20, old.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  const NamedTensor tensors[] = {{"w", DType::kF32, {1 << 19}, large.data()}};
  const std::string message =
      error_of([&] { CheckpointWriter(dir(2), 2).write_shard("weights", tensors); }, Fault::kResource);
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, SIG_DFL);
  EXPECT_NE(message.find("weights-00000-of-00001.safetensors"), std::string::npos);
  EXPECT_EQ(newest(), dir(1));
  EXPECT_FALSE(fs::exists(root_ / ".step_00000002.tmp"));
}

TEST_F(Checkpoints, ReplacesADamagedOneOfTheSameStep) {
  write(4);
  flip_byte(dir(4) / "model.txtpb", 0);
  write(4);
  CheckpointReader(dir(4), Verify::kAll);
}

TEST_F(Checkpoints, RetentionKeepsTheNewestAndWhatIsNotItsOwn) {
  fs::create_directories(root_ / "step_mine");
  std::ofstream(root_ / "notes.txt") << "x";
  for (const int64_t step : {10, 20, 30, 40}) keep(step, 2);
  EXPECT_EQ(list_steps(root_), (std::vector<int64_t>{40, 30}));
  keep(5, 1);  // a run begun anew: the later steps are not its to remove
  EXPECT_EQ(list_steps(root_), (std::vector<int64_t>{40, 30, 5}));
  EXPECT_TRUE(fs::exists(root_ / "step_mine"));
  EXPECT_TRUE(fs::exists(root_ / "notes.txt"));
  EXPECT_EQ(read_file(root_ / "LATEST"), "step_00000005\n");
}

TEST_F(Checkpoints, NothingIsFoundWhereNothingIs) {
  EXPECT_EQ(newest(), std::nullopt);
  EXPECT_EQ(find_newest(root_ / "none", [](const std::string&) {}), std::nullopt);
}

TEST_F(Checkpoints, TheNewestIntactOneIsUsedAndTheDamagedNamed) {
  for (const int64_t step : {8, 9, 10, 100000000}) keep(step);
  flip_byte(dir(100000000) / "weights-00000-of-00002.safetensors", 240);
  fs::remove(dir(10) / "manifest.json");
  EXPECT_EQ(newest(), dir(9));
  ASSERT_EQ(warnings_.size(), 3u);  // two checkpoints and LATEST
  EXPECT_NE(warnings_[0].find("step_100000000"), std::string::npos);
  EXPECT_NE(warnings_[1].find("step_00000010"), std::string::npos);
}

TEST_F(Checkpoints, ALostOrWrongLatestIsSurvived) {
  for (const int64_t step : {8, 9}) keep(step);
  EXPECT_EQ(newest(), dir(9));
  EXPECT_TRUE(warnings_.empty());
  for (const char* text : {"step_00000008\n", "", "../../etc", "\n\n"}) {
    std::ofstream(root_ / "LATEST") << text;
    EXPECT_EQ(newest(), dir(9));
    EXPECT_EQ(warnings_.size(), 1u);
  }
  fs::remove(root_ / "LATEST");
  EXPECT_EQ(newest(), dir(9));
}

TEST_F(Checkpoints, NoneIntactIsAnErrorAndNeverAFreshStart) {
  keep(8);
  flip_byte(dir(8) / "manifest.json", 10);
  error_of([&] { newest(); });
  EXPECT_EQ(warnings_.size(), 1u);
}

// Ranks whose run directories are not one and the same.
TEST_F(Checkpoints, AShardThatRankZeroDoesNotFindIsNamed) {
  const std::vector<float> x = {1, 2};
  const NamedTensor tensor[] = {{"x", DType::kF32, {2}, x.data()}};
  CheckpointWriter writer(dir(3), 3, 0, 2), elsewhere(folder_ / "elsewhere/step_00000003", 3, 1, 2);
  const std::string shards[] = {writer.write_shard("weights", std::span<const NamedTensor>()),
                                elsewhere.write_shard("weights", tensor)};
  const std::string error = error_of([&] { writer.finish(shards, {}); }, Fault::kUsage);
  EXPECT_NE(error.find("weights-00001-of-00002.safetensors: rank 0 does not find"), std::string::npos)
      << error;
  EXPECT_FALSE(fs::exists(dir(3)));
}

TEST_F(Checkpoints, ALatestWithoutAnyCheckpointIsNoFreshStart) {
  keep(8);
  fs::remove_all(dir(8));
  EXPECT_NE(error_of([&] { newest(); }).find("LATEST: its checkpoint is gone"), std::string::npos);
}

TEST_F(Checkpoints, ALatestThatIsAFolderIsSurvived) {
  keep(8);
  fs::remove(root_ / "LATEST");
  fs::create_directory(root_ / "LATEST");
  EXPECT_EQ(newest(), dir(8));
  keep(9);
  ASSERT_EQ(warnings_.size(), 2u);
  EXPECT_NE(warnings_[1].find("LATEST: is a directory"), std::string::npos) << warnings_[1];
  EXPECT_EQ(newest(), dir(9));
  set_aside(root_);
  EXPECT_TRUE(fs::is_directory(root_ / "LATEST"));  // it is not ours to remove
  EXPECT_EQ(newest(), std::nullopt);
}

TEST_F(Checkpoints, DamagedOnesAreNotCountedAmongTheKept) {
  for (const int64_t step : {10, 13}) keep(step);
  write(15);
  publish(root_, 15, 2, warn_, {13});
  EXPECT_EQ(list_steps(root_), (std::vector<int64_t>{15, 13, 10}));
}

TEST_F(Checkpoints, ARenamedStepIsNotTakenForAnother) {
  keep(8);
  fs::rename(dir(8), dir(80));
  error_of([&] { newest(); });
}

TEST_F(Checkpoints, ARunResolvesToItsNewest) {
  keep(8);
  keep(9);
  const Warn ignore = [](const std::string&) {};
  EXPECT_EQ(resolve_checkpoint(dir(8), ignore), dir(8));
  EXPECT_EQ(resolve_checkpoint(root_, ignore), dir(9));
  const fs::path run = root_ / "run";
  fs::create_directories(run / "checkpoints");
  error_of([&] { resolve_checkpoint(run, ignore); });
  fs::rename(dir(9), step_directory(run / "checkpoints", 9));
  EXPECT_EQ(resolve_checkpoint(run, ignore), step_directory(run / "checkpoints", 9));
}

}  // namespace
}  // namespace switchyard
