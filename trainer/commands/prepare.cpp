#include "trainer/data/prepare.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "kernels/check.h"
#include "trainer/commands/commands.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A line every two seconds: megabytes of the input files, speed, time left.
class ProgressLines {
 public:
  void operator()(const PrepareProgress& progress) {
    if (task_ != progress.task) {
      task_ = progress.task;
      started_ = shown_ = Clock::now();
    }
    if (seconds_since(shown_) < 2) return;
    shown_ = Clock::now();
    const auto done = static_cast<double>(progress.done), total = static_cast<double>(progress.total);
    const double rate = done / seconds_since(started_);
    const auto left = static_cast<int64_t>(rate > 0 ? (total - done) / rate : 0);
    fmt::print("{}: {:.1f} of {:.1f} MB ({:.0f}%), {:.1f} MB/s, {}:{:02} left\n", task_, done / 1e6,
               total / 1e6, total > 0 ? 100 * done / total : 100, rate / 1e6, left / 60, left % 60);
    std::fflush(stdout);
  }

 private:
  std::string task_;
  Clock::time_point started_, shown_;
};

void check(const PrepareArgs& args) {
  if (args.texts.empty()) fail(Fault::kUsage, "prepare: name the text files or folders to prepare");
  if (args.out.empty()) fail(Fault::kUsage, "prepare: --out PREFIX is missing");
  if (args.out.ends_with('/'))
    fail(Fault::kUsage, "prepare: --out ", args.out, " is a folder; name the files' prefix in it");
  if (args.train_tokenizer && !args.tokenizer.empty()) {
    fail(Fault::kUsage, "prepare: --tokenizer and --train-tokenizer exclude each other");
  }
  if (args.train_tokenizer && args.vocab_size <= 0) {
    fail(Fault::kUsage, "prepare: --train-tokenizer needs --vocab-size N");
  }
  if (!args.train_tokenizer && args.vocab_size != 0) {
    fail(Fault::kUsage, "prepare: --vocab-size goes with --train-tokenizer");
  }
}

}  // namespace

int run_prepare(const PrepareArgs& args) {
  check(args);
  const PrepareOptions options{.inputs = args.texts,
                               .out = args.out,
                               .tokenizer = args.tokenizer.empty() ? "byte" : args.tokenizer,
                               .train_tokenizer = args.train_tokenizer,
                               .vocab_size = args.vocab_size};
  const auto start = Clock::now();
  ProgressLines progress;
  const Sidecar made = prepare(options, [&](const PrepareProgress& now) { progress(now); });
  const double seconds = seconds_since(start), bytes = static_cast<double>(made.text_bytes);
  fmt::print(
      "{}: {} tokens in {} document{}, {:.2f} MB of text, {:.2f} bytes a token, vocabulary of {} ({})\n",
      args.out, made.tokens, made.documents, made.documents == 1 ? "" : "s", bytes / 1e6,
      bytes / static_cast<double>(made.tokens), made.vocab_size, made.tokenizer);
  if (args.train_tokenizer && made.vocab_size < args.vocab_size)
    fmt::print("{} were asked for: the text has no more pairs to merge\n", args.vocab_size);
  fmt::print("took {:.1f} s, {:.1f} MB/s\n", seconds, bytes / 1e6 / seconds);
  return 0;
}

}  // namespace switchyard
