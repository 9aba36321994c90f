// A run as a report shows it: what lies in its directory.
#pragma once

#include <optional>

#include "trainer/config.h"
#include "trainer/report/data_sets.h"
#include "trainer/report/history.h"

namespace switchyard {

struct ReportedRun {
  std::string name;  // its directory's
  RunHistory history;
  std::optional<Config> config;
  std::string config_text;
  std::string host, started, device;  // "": unknown
  int64_t ranks = 0;                  // 0: unknown
  std::string sample, sample_name;    // the newest
  std::vector<std::string> notices;   // what the reader should know first: files that are missing, gaps
  std::vector<DataSet> data;          // filled in by whoever evaluates
};

// Error{kData} for a metrics.jsonl or eval.jsonl that is missing or damaged; other files may be.
ReportedRun read_run(const std::filesystem::path& directory);

}  // namespace switchyard
