#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "tests/support/training_run.h"
#include "tests/trainer/temporary_folder.h"
#include "trainer/files/files.h"
#include "trainer/metrics/load_picture.h"
#include "trainer/metrics/tensorboard/event.pb.h"
#include "trainer/metrics/tensorboard/event_file.h"
#include "trainer/metrics/tensorboard/summaries.h"
#include "trainer/metrics/tensorboard/tf_record.h"

namespace switchyard {
namespace {

using tensorboard::Event;
using tensorboard::Summary;

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// The whole records of a file, as a reader takes them: up to the first that is cut.
std::vector<Event> events_of(const fs::path& path) {
  const std::string bytes = read_file(path);
  std::vector<Event> events;
  for (size_t at = 0; at + 12 <= bytes.size();) {
    uint64_t size = 0;
    std::memcpy(&size, &bytes[at], sizeof size);
    if (at + 16 + size > bytes.size()) break;
    const std::string data = bytes.substr(at + 12, size);
    EXPECT_EQ(bytes.substr(at, 16 + size), tf_record(data));
    EXPECT_TRUE(events.emplace_back().ParseFromString(data));
    at += 16 + size;
  }
  return events;
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (fs::exists(folder)) files.assign(fs::directory_iterator(folder), fs::directory_iterator());
  std::sort(files.begin(), files.end());
  return files;
}

// The steps that are shown of a tag once a reader has come through all files: a START
// takes back what came before.
std::vector<int64_t> shown_steps(const fs::path& folder, const std::string& tag) {
  std::vector<int64_t> steps;
  for (const fs::path& file : files_in(folder)) {
    for (const Event& event : events_of(file)) {
      if (event.has_session_log()) std::erase_if(steps, [&](int64_t step) { return step >= event.step(); });
      for (const Summary::Value& value : event.summary().value()) {
        if (value.tag() == tag) steps.push_back(event.step());
      }
    }
  }
  return steps;
}

Summary scalar(double value) {
  Summary summary;
  add_scalar(summary, "a", value);
  return summary;
}

TEST(Crc32c, OfKnownBytes) {  // RFC 3720, B.4
  std::string rising(32, '\0');
  for (size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<char>(i);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(TfRecord, OfOneEventEqualsTensorBoards) {
  Event event;
  event.set_wall_time(1.5);
  event.set_step(7);
  *event.mutable_summary() = scalar(0.5);
  EXPECT_EQ(tf_record(event.SerializeAsString()),
            from_hex("1700000000000000e7cef81e09000000000000f83f10072a0a0a080a0161150000003f6fd64f8c"));
}

TEST(EventFile, BeginsWithItsVersionAndTheStepItTakesOverAt) {
  const TemporaryFolder folder;
  EventFile file(folder / "tb", 5);
  file.write(6, scalar(2));
  const std::vector<Event> events = events_of(file.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].session_log().status(), tensorboard::SessionLog::START);
  EXPECT_EQ(events[1].step(), 5);
  EXPECT_EQ(events[2].summary().value(0).simple_value(), 2);
  EXPECT_GT(events[2].wall_time(), 1.7e9);
}

TEST(EventFile, SortsBehindTheOthersWhateverTheirTime) {
  const TemporaryFolder folder;
  write_bytes(folder / "events.out.tfevents.9000000000.zebra.1.0", "");
  EventFile second(folder / "", 1), third(folder / "", 1);
  const std::vector<fs::path> files = files_in(folder / "");
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[1].filename(), second.path().filename());
  EXPECT_EQ(files[2].filename(), third.path().filename());
}

TEST(EventFile, IsWholeAfterEveryWrite) {
  const TemporaryFolder folder;
  EventFile file(folder / "tb", 1);
  for (int step = 1; step <= 3; ++step) {
    file.write(step, scalar(step));
    EXPECT_EQ(events_of(file.path()).size(), 2u + step);
  }
}

TEST(Summaries, TextIsShownAsItIs) {
  Summary summary;
  add_text(summary, "t",
           "# <b>\n\n* \xff"
           "end");
  EXPECT_EQ(summary.value(0).tensor().string_val(0),
            "    # <b>\n    \n    * \xef\xbf\xbd"
            "end\n");
}

TEST(Summaries, ABarForEachCount) {
  Summary summary;
  add_bars(summary, "t", {3, 0}, "");
  const tensorboard::Tensor& tensor = summary.value(0).tensor();
  ASSERT_EQ(tensor.tensor_shape().dim_size(), 2);
  EXPECT_EQ(tensor.tensor_shape().dim(0).size(), 2);
  double rows[2][3];
  ASSERT_EQ(tensor.tensor_content().size(), sizeof rows);
  std::memcpy(rows, tensor.tensor_content().data(), sizeof rows);
  const double expected[2][3] = {{0, 1, 3}, {1, 2, 0}};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(rows[i / 3][i % 3], expected[i / 3][i % 3]) << i;
}

TEST(LoadPicture, EvenIsTransparentMoreIsOrangeLessIsBlueNoneIsGrey) {
  EXPECT_EQ(load_color(1).alpha, 0);
  EXPECT_GT(load_color(2).red, load_color(2).blue);
  EXPECT_LT(load_color(0.5).red, load_color(0.5).blue);
  EXPECT_EQ(load_color(2).alpha, load_color(0.5).alpha);
  EXPECT_EQ(load_color(4), load_color(400));
  EXPECT_EQ(load_color(0).red, load_color(0).blue);
  EXPECT_EQ(load_color(0).alpha, 255);
}

TEST(LoadPicture, HasARowForEachLayerAndAColumnForEachExpert) {
  Image image = load_picture({{1, 4}, {0}}, 3);
  EXPECT_EQ(image.width, 6);
  EXPECT_EQ(image.height, 6);
  EXPECT_EQ(image.at(2, 2), load_color(1));
  EXPECT_EQ(image.at(3, 0), load_color(4));
  EXPECT_EQ(image.at(0, 3), load_color(0));
  EXPECT_EQ(image.at(5, 5), Color());
}

TEST(Png, HoldsThePixelsRowByRowLessTheRowAbove) {
  Image image(1, 2);
  image.at(0, 0) = {1, 2, 3, 4};
  image.at(0, 1) = {1, 2, 3, 5};
  const std::string png = to_png(image);
  EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  const size_t data = png.find("IDAT") + 4;
  std::string rows(10, '?');
  uLongf size = rows.size();
  ASSERT_EQ(uncompress(reinterpret_cast<Bytef*>(rows.data()), &size,
                       reinterpret_cast<const Bytef*>(png.data() + data), png.size() - data),
            Z_OK);
  EXPECT_EQ(rows, std::string("\2\1\2\3\4\2\0\0\0\1", 10));
}

class BoardOfARun : public testing::Test {
 protected:
  BoardOfARun() { test::write_training_tokens(folder_ / "tokens"); }
  void train(int64_t steps, const std::string& changes = "", bool resume = true) {
    Config config = test::small_config(folder_ / "tokens", {"checkpoint { every_steps: 4 }", changes});
    config.train.steps = steps;
    test::train(config, {2, 2}, folder_ / "run", resume);
  }
  std::vector<int64_t> losses() { return shown_steps(folder_ / "run/tb", "train/loss"); }

  TemporaryFolder folder_;
};

TEST_F(BoardOfARun, ShowsEachStepOnceAfterAResume) {
  train(6);
  fs::remove_all(folder_ / "run/checkpoints/step_00000006");
  train(7);
  EXPECT_EQ(losses(), (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(files_in(folder_ / "run/tb").size(), 2u);
}

TEST_F(BoardOfARun, ShowsNothingOfARunThatWasStartedAnew) {
  train(6);
  train(2, "", false);
  EXPECT_EQ(losses(), (std::vector<int64_t>{1, 2}));
}

TEST_F(BoardOfARun, OfTheRunBeforeIsTakenBackWhereItIsSwitchedOff) {
  train(6);
  train(2, "log { tensorboard: false }", false);
  EXPECT_EQ(losses(), std::vector<int64_t>{});
  train(4);
  EXPECT_EQ(losses(), (std::vector<int64_t>{3, 4}));
}

TEST_F(BoardOfARun, AFinishedRunGetsNoFurtherFile) {
  train(2);
  train(2);
  EXPECT_EQ(files_in(folder_ / "run/tb").size(), 1u);
}

TEST_F(BoardOfARun, LoadsComeAtTheStepsThatAreLogged) {
  train(7, "log { every_steps: 3 }");
  EXPECT_EQ(shown_steps(folder_ / "run/tb", "moe/load"), (std::vector<int64_t>{1, 3, 6, 7}));
  EXPECT_EQ(shown_steps(folder_ / "run/tb", "moe/layer_01/load"), (std::vector<int64_t>{1, 3, 6, 7}));
}

TEST_F(BoardOfARun, AFileInItsPlaceIsRefusedBeforeTheFirstStep) {
  fs::create_directory(folder_ / "run");
  std::ofstream(folder_ / "run/tb") << "mine";
  EXPECT_EQ(fault_of([&] { train(1); }, "tb: exists and is no directory"), Fault::kUsage);
  EXPECT_FALSE(fs::exists(folder_ / "run/metrics.jsonl"));
}

TEST_F(BoardOfARun, CanBeSwitchedOff) {
  train(1, "log { tensorboard: false }");
  EXPECT_FALSE(fs::exists(folder_ / "run/tb"));
}

}  // namespace
}  // namespace switchyard
