// A run, or several, as one HTML page: curves over steps and pictures of what the experts do.
#pragma once

#include "trainer/report/run.h"

namespace switchyard {

// With several runs each curve chart has a curve for each.
std::string report_html(const std::vector<ReportedRun>& runs);

}  // namespace switchyard
