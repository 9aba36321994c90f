// The program: one command, one exit code.
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <string_view>
#include <variant>

#include "kernels/check.h"
#include "parallel/comm/make.h"
#include "trainer/commands/command_line.h"
#include "trainer/commands/commands.h"
#include "trainer/commands/exit_code.h"

namespace switchyard {
namespace {

struct Run {
  int operator()(const Message& message) const {
    std::fputs(message.text.c_str(), stdout);
    return 0;
  }
  int operator()(const TrainArgs& args) const { return run_train(args); }
  int operator()(const EvalArgs& args) const { return run_eval(args); }
  int operator()(const GenerateArgs& args) const { return run_generate(args); }
  int operator()(const ScoreArgs& args) const { return run_score(args); }
  int operator()(const ImportArgs& args) const { return run_import(args); }
  int operator()(const ExportArgs& args) const { return run_export(args); }
  int operator()(const PrepareArgs& args) const { return run_prepare(args); }
  int operator()(const InspectArgs& args) const { return run_inspect(args); }
  int operator()(const ReportArgs& args) const { return run_report(args); }
  int operator()(const PlanArgs& args) const { return run_plan(args); }
};

int run_program(int argc, char** argv) {
  try {
    return std::visit(Run{}, parse_command_line({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    // A wrong command line is the same on every rank of a job. The other commands know no ranks.
    const bool alike = argc > 1 && std::string_view(argv[1]) == "train";
    return alike ? report_once(error, launch_info().rank) : report_and_exit_code(error);
  }
}

// The next files to be opened would be given the numbers of standard streams that are closed, and what is
// printed would go into them.
void open_standard_streams() {
  int descriptor = 0;
  do {
    descriptor = ::open("/dev/null", O_RDWR);
  } while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor >= 0) ::close(descriptor);
}

// A result that could not be written is none.
int check_standard_output(int code) {
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (code != 0 || written) return code;
  return report_and_exit_code(Error(Fault::kResource, "standard output cannot be written"));
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  switchyard::open_standard_streams();
  // A file at its size limit is a failed write, with exit code 6, and no death.
  std::signal(SIGXFSZ, SIG_IGN);
  const int code = switchyard::run_program(argc, argv);
  const bool trains = argc > 1 && std::string_view(argv[1]) == "train";
  return trains ? code : switchyard::check_standard_output(code);  // what train says is in its log too
}
