// Damages inputs and gives them to every reader of files: each must be read or refused with an Error of the
// user's, in bounded memory and time.
//
//   fuzz [--seconds N | --runs N] [--seed N] [--target NAME]...     N seconds in all, or N inputs a target
//   fuzz --target NAME --input FILE                                 one input again
//
// The same seed gives the same inputs. An input whose refusal says something new, or that is read,
// joins those that the next ones are made of: messages are the coverage that steers it. What fails
// is written to fuzz-TARGET.input.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <set>

#include "tests/fuzz/mutate.h"
#include "tests/fuzz/targets.h"
#include "tests/fuzz/watch.h"
#include "trainer/files/files.h"

namespace switchyard::fuzz {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  double seconds = 0;
  int64_t runs = 0;  // a target; 0: until the time is over
  uint64_t seed = 1;
  std::vector<std::string> targets;
  std::string input;
};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A message without its numbers and quoted names: where in the reader it comes from.
std::string kind_of(const std::string& message) {
  std::string kind;
  bool quoted = false;
  for (const char c : message.substr(0, message.find('\n'))) {
    if (c == '\'' || c == '"') quoted = !quoted;
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == ' ';
    if (!quoted && plain) kind += c;
  }
  return kind.substr(0, 160);
}

class Fuzzer {
 public:
  Fuzzer(const Target& target, const fs::path& folder, const Options& options)
      : target_(target), folder_(folder), random_(options.seed), inputs_(target.seeds) {}

  // False where the reader did what it must not.
  bool run(int64_t runs, double seconds) {
    const auto begin = Clock::now();
    for (const std::string& seed : target_.seeds) {
      if (!try_input(seed)) return false;
      if (accepted_ != ++seeds_) return complain("a seed is refused", seed);
    }
    int64_t done = 0;
    for (; runs > 0 ? done < runs : seconds_since(begin) < seconds; ++done) {
      std::string input = mutated(pick(), pick(), random_);
      if (target_.repair && !random_.one_in(4)) target_.repair(input);
      if (!try_input(input)) return false;
    }
    fmt::print("  {:<30} {:>9} inputs {:>9.0f}/s {:>8} read {:>5} messages {:>5} kept {:>8.2f} MB at most\n",
               target_.name, done, static_cast<double>(done) / seconds_since(begin), accepted_, kinds_.size(),
               inputs_.size(), static_cast<double>(peak_) / 1e6);
    std::fflush(stdout);
    return true;
  }

  bool try_input(const std::string& input) {
    const Outcome outcome = watch(input, [&] { target_.read(input, folder_); });
    accepted_ += !outcome.refused;
    peak_ = std::max(peak_, outcome.peak);
    if (!outcome.fault.empty()) return complain(outcome.fault, input);
    const bool is_new = outcome.refused ? kinds_.insert(kind_of(outcome.message)).second : random_.one_in(50);
    if (is_new && inputs_.size() < kMostInputs) inputs_.push_back(input);
    return true;
  }

 private:
  static constexpr size_t kMostInputs = 2000;

  const std::string& pick() { return inputs_[random_.below(inputs_.size())]; }

  bool complain(const std::string& fault, const std::string& input) const {
    const std::string file = "fuzz-" + target_.name + ".input";
    write_file(file, input);
    fmt::print(stderr, "fuzz: {}: {}; the input is in {}\n", target_.name, fault.substr(0, 400), file);
    return false;
  }

  const Target& target_;
  fs::path folder_;
  Random random_;
  std::vector<std::string> inputs_;
  std::set<std::string> kinds_;
  int64_t accepted_ = 0, seeds_ = 0;
  size_t peak_ = 0;
};

bool run_targets(const Options& options, const fs::path& folder) {
  std::vector<Target> targets = make_targets();
  if (!options.targets.empty()) {
    std::erase_if(targets, [&](const Target& t) {
      return std::find(options.targets.begin(), options.targets.end(), t.name) == options.targets.end();
    });
  }
  if (targets.empty()) fail(Fault::kUsage, "no such target");
  const auto begin = Clock::now();
  bool good = true;
  for (const Target& target : targets) {
    dump_crashes_to(fs::absolute("fuzz-" + target.name + ".input").string());
    Fuzzer fuzzer(target, folder, options);
    if (!options.input.empty()) return fuzzer.try_input(read_file(options.input));
    good &= fuzzer.run(options.runs, options.seconds / static_cast<double>(targets.size()));
  }
  fmt::print("fuzz: {} readers in {:.0f} s, {}\n", targets.size(), seconds_since(begin),
             good ? "no failure" : "FAILED");
  return good;
}

}  // namespace
}  // namespace switchyard::fuzz

int main(int argc, char** argv) {
  using namespace switchyard;
  fuzz::Options options;
  CLI::App app{"Damages inputs and gives them to every reader of files."};
  app.add_option("--seconds", options.seconds, "in all");
  app.add_option("--runs", options.runs, "inputs a target, in place of --seconds");
  app.add_option("--seed", options.seed);
  app.add_option("--target", options.targets, "only these");
  app.add_option("--input", options.input, "a file to read once");
  CLI11_PARSE(app, argc, argv);
  const fs::path memory = "/dev/shm";  // a file there costs no disk
  std::string pattern =
      ((fs::is_directory(memory) ? memory : fs::temp_directory_path()) / "switchyard_fuzz_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return 6;
  int code = 1;
  try {
    code = fuzz::run_targets(options, pattern) ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "fuzz: {}\n", error.what());
  }
  fs::remove_all(pattern);
  return code;
}
