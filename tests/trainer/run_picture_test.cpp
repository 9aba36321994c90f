#include "trainer/metrics/run_picture.h"

#include <gtest/gtest.h>

#include "tests/trainer/temporary_folder.h"
#include "trainer/metrics/terminal_plot.h"

namespace switchyard {
namespace {

std::string picture_of(const std::string& lines) {
  const TemporaryFolder folder;
  write_bytes(folder / "metrics.jsonl", lines);
  return run_picture(folder / "metrics.jsonl");
}

const char* const kTwoSteps = R"({"step": 1, "loss": 4.0, "layers": [{"layer": 1, "load": [1.0, 0.0, 0.0]}]})"
                              "\n"
                              R"({"step": 2, "loss": 2.0, "layers": [{"layer": 1, "load": [0.0, 1.0, 0.0]}]})"
                              "\n";

TEST(RunPicture, DrawsTheLossOfEveryStep) {
  EXPECT_NE(picture_of(kTwoSteps).find(plot_curve({1, 2}, {4, 2})), std::string::npos);
}

TEST(RunPicture, ShowsTheMeanLoadOfTheStepsAndCountsExpertsWithoutTokens) {
  const std::string text = picture_of(kTwoSteps);
  EXPECT_NE(text.find("layer  1  " + load_lines({0.5, 0.5, 0})[0]), std::string::npos) << text;
  EXPECT_NE(text.find("1 without any token"), std::string::npos) << text;
}

TEST(RunPicture, PassesOverALineThatAKillCut) {
  EXPECT_EQ(picture_of(std::string(kTwoSteps) + R"({"step": 3, "lo)"), picture_of(kTwoSteps));
}

TEST(RunPicture, WithoutMetricsThereIsNothingToDraw) {
  EXPECT_EQ(run_picture("/nonexistent/metrics.jsonl"), "");
}

TEST(RunPicture, AnotherProgramsFileIsNoError) {
  EXPECT_EQ(
      picture_of(
          "{\"step\": 1, \"loss\": 2, \"layers\": [5]}\n{\"step\": 2, \"loss\": 1, \"layers\": [{}]}\n"),
      "");
}

}  // namespace
}  // namespace switchyard
