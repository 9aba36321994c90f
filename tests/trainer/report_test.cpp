#include "trainer/report/report.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/trainer/temporary_folder.h"
#include "trainer/report/curves.h"
#include "trainer/report/page.h"

namespace switchyard {
namespace {

using Values = std::vector<double>;

TEST(Curves, ExtremesKeepEverySpikeAndFewPoints) {
  Curve curve;
  for (int i = 0; i < 10000; ++i) {
    curve.x.push_back(i);
    curve.y.push_back(i == 4321 ? 100 : i == 77 ? -100 : 1);
  }
  const Curve few = extremes(curve, 50);
  EXPECT_LE(few.x.size(), 100u);
  EXPECT_EQ(*std::max_element(few.y.begin(), few.y.end()), 100);
  EXPECT_EQ(*std::min_element(few.y.begin(), few.y.end()), -100);
  EXPECT_TRUE(std::is_sorted(few.x.begin(), few.x.end()));
}

TEST(Curves, MeansAreOfEqualPartsOfX) {
  const Curve few = means({{0, 1, 2, 9, 10}, {1, 2, 3, 7, 9}}, 2);
  EXPECT_EQ(few.x, (Values{1, 9.5}));
  EXPECT_EQ(few.y, (Values{2, 8}));
}

TEST(Curves, SmoothingIsEvenSidedAtTheStart) {
  EXPECT_EQ(smoothed({{1, 2, 3, 4}, {8, 4, 0, 4}}, 1).y, (Values{8, 4, 8.0 / 3, 2}));
}

TEST(Curves, PointsWithoutAValueAreLeftOut) { EXPECT_EQ(finite({1, 2, 3}, {5, NAN, 6}).x, (Values{1, 3})); }

TEST(Curves, TicksAreRoundAndCoverTheRange) {
  EXPECT_EQ(nice_ticks(0.3, 4.2, 5), (Values{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(nice_ticks(0, 800, 4), (Values{0, 200, 400, 600, 800}));
  EXPECT_EQ(nice_ticks(-3, 3, 3), (Values{-4, -2, 0, 2, 4}));
}

TEST(Curves, NumbersAreShort) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(3e-5), "3e-5");
  EXPECT_EQ(short_number(0.0025), "0.0025");
  EXPECT_EQ(short_number(12500), "12.5k");
  EXPECT_EQ(short_number(-4088064), "-4.088M");
}

TEST(Base64, OfEveryLength) {  // RFC 4648
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("\xff\xfe"), "//4=");
}

std::string moe_line(int64_t step, double first_share) {
  return fmt::format(
      R"({{"step":{},"loss":{},"lr":0.1,"layers":[{{"layer":2,"max_violation":0.5,"load":[{},{}]}}]}})"
      "\n",
      step, 2.0 / static_cast<double>(step), first_share, 1 - first_share);
}

class ReportOfARun : public testing::Test {
 protected:
  void metrics(const std::string& lines) { write_bytes(folder_ / "metrics.jsonl", lines); }
  RunHistory history() { return read_history(folder_ / ""); }
  std::string html() { return report_html({read_run(folder_ / ".")}); }
  Fault fault(const std::string& part) {
    return fault_of([&] { read_run(folder_ / "."); }, part);
  }
  bool shows(const std::string& text) { return html().find(text) != std::string::npos; }

  TemporaryFolder folder_;
};

TEST_F(ReportOfARun, LoadsAreMeansOverStretchesOfTime) {
  std::string lines;
  for (int64_t step = 1; step <= 1000; ++step) lines += moe_line(step, step <= 500 ? 0.25 : 0.75);
  metrics(lines);
  const RunHistory h = history();
  ASSERT_EQ(h.layers.size(), 1u);
  EXPECT_EQ(h.layers[0].layer(), 2);
  const auto bins = h.layers[0].over_time();
  EXPECT_LE(bins.size(), LoadHistory::kMostBins);
  EXPECT_GT(bins.size(), LoadHistory::kMostBins / 3);
  EXPECT_EQ(bins.front(), (Values{0.5, 1.5}));
  EXPECT_EQ(bins.back(), (Values{1.5, 0.5}));
  EXPECT_NEAR(h.layers[0].last()[0], 1.5, 1e-12);
}

TEST_F(ReportOfARun, ALineThatIsStillBeingWrittenIsLeftOut) {
  metrics(moe_line(1, 0.5) + R"({"step":2,"lo)");
  EXPECT_EQ(history().step, (Values{1}));
}

TEST_F(ReportOfARun, ADamagedLineIsNamed) {
  const std::string good = moe_line(1, 0.5);
  for (const char* bad :
       {"{\"step\":2,\"loss\":}\n", "[]\n", "\n", "{\"step\":2.5}\n", "{\"step\":-1}\n", "{}\n",
        "{\"step\":2,\"loss\":\"low\"}\n", "{\"step\":2,\"layers\":{}}\n", "{\"step\":2,\"layers\":[7]}\n",
        "{\"step\":2,\"layers\":[{\"layer\":2,\"load\":[0.5]}]}\n",
        "{\"step\":2,\"layers\":[{\"layer\":2,\"load\":[0.5,1e9]}]}\n", "{\"step\":1}\n"}) {
    SCOPED_TRACE(bad);
    metrics(good + std::string(bad) + moe_line(3, 0.5));
    EXPECT_EQ(fault("metrics.jsonl:2: "), Fault::kData);
  }
  metrics(good + std::string(100000, '[') + "\n");
  EXPECT_EQ(fault("metrics.jsonl:2: "), Fault::kData);
}

TEST_F(ReportOfARun, AFolderWithoutMetricsIsNoRun) { EXPECT_EQ(fault("no run"), Fault::kData); }

TEST_F(ReportOfARun, ARunWithoutAStepSaysSo) {
  metrics("");
  EXPECT_TRUE(shows("No step is done yet"));
  EXPECT_FALSE(shows("class=\"plot\""));
}

TEST_F(ReportOfARun, OneStepIsADot) {
  metrics(moe_line(1, 0.5));
  EXPECT_TRUE(shows("<path class=\"dots s0\" data-name=\"training\""));
}

TEST_F(ReportOfARun, ADenseRunHasNoExperts) {
  metrics("{\"step\":1,\"loss\":3,\"layers\":[]}\n{\"step\":2,\"loss\":2,\"layers\":[]}\n");
  EXPECT_TRUE(shows("<b>Loss</b>"));
  EXPECT_FALSE(shows("<h2>Experts</h2>"));
  EXPECT_FALSE(shows("Load of each expert"));
}

TEST_F(ReportOfARun, ValuesThatAreMissingOrAbsurdLeaveGaps) {
  metrics(
      "{\"step\":1,\"loss\":null}\n{\"step\":2,\"loss\":1e300}\n{\"step\":1000000000000000,\"loss\":2}\n");
  EXPECT_TRUE(shows("<b>Loss</b>"));
  EXPECT_FALSE(shows("nan"));
  EXPECT_FALSE(shows("inf\""));
}

TEST_F(ReportOfARun, StepsThatAreMissingAreCounted) {
  metrics(moe_line(1, 0.5) + moe_line(4, 0.5));
  EXPECT_TRUE(shows("metrics.jsonl lacks 2 steps, the first of them step 2."));
}

TEST_F(ReportOfARun, EveryTextIsEscaped) {
  const std::string evil = "</pre><script>alert('x')</script>&\"";
  metrics(moe_line(1, 0.5) + moe_line(2, 0.5));
  write_bytes(folder_ / "config.txtpb", evil);
  write_bytes(folder_ / "env.json", "{\"host\":\"<b>\",\"world_size\":2}");
  std::filesystem::create_directory(folder_ / "samples");
  write_bytes(folder_ / "samples/step_00000001.txt", evil);
  ReportedRun run = read_run(folder_ / ".");
  run.name = evil;
  run.data = {{.name = evil, .tokens = 1, .loss = 1, .bits_per_byte = NAN, .layers = {{0, {1, 1}}}}};
  const std::string html = report_html({run, run}) + report_html({run});
  EXPECT_EQ(html.find("alert('x')"), std::string::npos);
  EXPECT_EQ(html.find("<script>alert"), std::string::npos);
  EXPECT_NE(html.find("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"), std::string::npos);
  EXPECT_EQ(html.find("<b></b><small>, <b>"), std::string::npos);
}

TEST_F(ReportOfARun, NeedsNothingFromElsewhere) {
  std::string lines;
  for (int64_t step = 1; step <= 300; ++step) lines += moe_line(step, 0.3);
  metrics(lines);
  const std::string text = html();
  EXPECT_EQ(text.find("http"), std::string::npos);
  EXPECT_EQ(text.find("@import"), std::string::npos);
  EXPECT_EQ(text.find("<link"), std::string::npos);
  for (size_t at = text.find("src="); at != std::string::npos; at = text.find("src=", at + 1))
    EXPECT_EQ(text.substr(at, 15), "src=\"data:image");
}

TEST_F(ReportOfARun, ThousandsOfStepsMakeASmallFile) {
  std::string lines;
  for (int64_t step = 1; step <= 20000; ++step)
    lines += moe_line(step, 0.5 + 0.1 * std::sin(static_cast<double>(step)));
  metrics(lines);
  EXPECT_LT(html().size(), 150'000u);
}

TEST_F(ReportOfARun, SeveralRunsShareACurveChart) {
  metrics(moe_line(1, 0.5) + moe_line(2, 0.5));
  ReportedRun first = read_run(folder_ / "."), second = first;
  first.name = "first";
  second.name = "second";
  const std::string text = report_html({first, second});
  const size_t chart = text.find("<b>Loss</b>"), end = text.find("</figure>", chart);
  const std::string loss = text.substr(chart, end - chart);
  EXPECT_NE(loss.find("data-name=\"first\""), std::string::npos);
  EXPECT_NE(loss.find("data-name=\"second\""), std::string::npos);
}

TEST(DataSets, AreReadFromWhatEvalPrints) {
  const std::string text =
      "data  loss\nde  1.0\n"
      R"({"loss":1.5,"data":[{"data":"x/de","loss":1,"tokens":7,"layers":[{"layer":1,"load":[0.75,0.25]}]},)"
      R"({"data":"x/ja","loss":2,"tokens":8,"bits_per_byte":3,"layers":[{"layer":1,"load":[0,1]}]}]})"
      "\n";
  const std::vector<DataSet> data = read_evaluation("eval.txt", text);
  ASSERT_EQ(data.size(), 2u);
  EXPECT_EQ(data[0].name, "de");
  EXPECT_TRUE(std::isnan(data[0].bits_per_byte));
  EXPECT_EQ(data[1].bits_per_byte, 3);
  EXPECT_EQ(data[0].layers[0].shares, (Values{1.5, 0.5}));
  EXPECT_NE(data_sets_html(data).find("<th>ja</th>"), std::string::npos);
}

TEST(DataSets, SomethingElseIsRefusedWithItsLine) {
  for (const char* bad : {"", "a table\n", "x\n{\"data\":[3]}"})
    EXPECT_EQ(fault_of([&] { read_evaluation("eval.txt", bad); }, "eval.txt:"), Fault::kData);
}

}  // namespace
}  // namespace switchyard
