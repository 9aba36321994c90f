#include "trainer/report/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "trainer/files/files.h"
#include "trainer/job/run_directory.h"

namespace switchyard {
namespace {

constexpr int64_t kLargestText = 1 << 20;
constexpr size_t kSampleBytes = 4000;

std::string text_of(const nlohmann::json& object, const char* name) {
  const auto field = object.find(name);
  return field != object.end() && field->is_string() ? field->get<std::string>() : "";
}

void read_config(const fs::path& path, ReportedRun& run) {
  if (!fs::exists(path)) return run.notices.push_back("There is no config.txtpb.");
  try {
    run.config_text = read_file(path, kLargestText);
    run.config = parse_config(run.config_text, path.string());
  } catch (const Error& error) {
    const std::string what = error.what();
    run.notices.push_back("The configuration cannot be read: " + what.substr(0, what.find('\n')));
  }
}

void read_environment(const fs::path& path, ReportedRun& run) {
  if (!fs::exists(path)) return;
  const auto json = nlohmann::json::parse(read_file(path, kLargestText), nullptr, false);
  if (!json.is_object()) return;
  run.host = text_of(json, "host");
  run.started = text_of(json, "started");
  run.device = text_of(json, "device");
  const auto ranks = json.find("world_size");
  if (ranks != json.end() && ranks->is_number_integer()) run.ranks = ranks->get<int64_t>();
}

void read_sample(const fs::path& folder, ReportedRun& run) {
  if (!fs::is_directory(folder)) return;
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("step_") && entry.is_regular_file())
      newest = std::max(newest, entry.path());
  }
  if (newest.empty()) return;
  run.sample_name = newest.stem().string();
  run.sample = read_file(newest).substr(0, kSampleBytes);
}

void note_gaps(ReportedRun& run) {
  const std::vector<double>& steps = run.history.step;
  double missing = 0, first = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const double expected = i == 0 ? 1 : steps[i - 1] + 1;
    if (steps[i] > expected && missing == 0) first = expected;
    missing += std::max(0.0, steps[i] - expected);
  }
  if (missing == 0) return;
  run.notices.push_back(fmt::format("metrics.jsonl lacks {:.0f} {}, the first of them step {:.0f}.", missing,
                                    missing == 1 ? "step" : "steps", first));
}

}  // namespace

ReportedRun read_run(const fs::path& directory) {
  ReportedRun run;
  run.history = read_history(directory);
  run.name = fs::canonical(directory).filename().string();
  const RunDirectory files{directory};
  read_config(files.config(), run);
  read_environment(files.env(), run);
  read_sample(files.samples(), run);
  note_gaps(run);
  return run;
}

}  // namespace switchyard
