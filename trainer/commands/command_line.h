// The command line as a command with its arguments, or as text to print.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "trainer/commands/commands.h"

namespace switchyard {

// --help and --version: text for stdout, and nothing to do.
struct Message {
  std::string text;
};

using CommandLine = std::variant<Message, TrainArgs, EvalArgs, GenerateArgs, ScoreArgs, ImportArgs,
                                 ExportArgs, PrepareArgs, InspectArgs, PlanArgs, ReportArgs>;

// The arguments after the program's name. Error{kUsage} with one line for what it cannot take.
CommandLine parse_command_line(const std::vector<std::string>& arguments);

}  // namespace switchyard
