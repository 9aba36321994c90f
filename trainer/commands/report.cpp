#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "trainer/commands/commands.h"
#include "trainer/files/files.h"
#include "trainer/job/evaluate_file.h"
#include "trainer/job/run_directory.h"
#include "trainer/report/report.h"

namespace switchyard {

namespace {

std::vector<DataSet> data_sets(const ReportArgs& args, const std::string& run) {
  if (!args.evaluation.empty()) return read_evaluation(args.evaluation, read_file(args.evaluation));
  if (args.data.empty()) return {};
  const LoadedModel loaded = load_model(run);
  nlohmann::json all{{"data", nlohmann::json::array()}};
  for (const std::string& prefix : args.data) {
    auto part = nlohmann::json::parse(to_json(evaluate_file(loaded, prefix)));
    part["data"] = prefix;
    all["data"].push_back(part);
  }
  return read_evaluation(run, all.dump());
}

void refuse_files_of(const std::string& run, const fs::path& out) {
  const RunDirectory directory{run};
  std::error_code ignored;
  for (const fs::path& file : {directory.config(), directory.env(), directory.log(), directory.metrics(),
                               directory.evaluations(), directory.checkpoints() / "LATEST"})
    if (fs::equivalent(file, out, ignored))
      fail(Fault::kUsage, "--out ", out.string(), ": is a file of the run itself");
}

}  // namespace

int run_report(const ReportArgs& args) {
  if (args.runs.size() > 1 && args.out.empty())
    fail(Fault::kUsage, "a report of several runs needs --out FILE");
  if (args.runs.size() > 1 && !args.evaluation.empty()) fail(Fault::kUsage, "--evaluation is of one run");
  const fs::path out = args.out.empty() ? fs::path(args.runs[0]) / "report.html" : fs::path(args.out);
  std::vector<ReportedRun> runs;
  for (const std::string& path : args.runs) {
    refuse_files_of(path, out);
    runs.push_back(read_run(path));
    runs.back().data = data_sets(args, path);
  }
  write_file(out, report_html(runs));
  fmt::print("{}\n", out.string());
  return 0;
}

}  // namespace switchyard
