// The figures that a report opens with.
#pragma once

#include "trainer/report/run.h"

namespace switchyard {

std::string facts_html(const ReportedRun& run);                // of one, as tiles
std::string facts_html(const std::vector<ReportedRun>& runs);  // of several, as a table

}  // namespace switchyard
