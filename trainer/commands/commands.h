// The program's subcommands: what the command line says, and what each returns to
// the shell. A fault is thrown.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/device/device.h"

namespace switchyard {

struct TrainArgs {
  std::string config;
  std::vector<std::string> sets, merges;
  std::string run_dir;          // empty: runs/NAME
  std::string resume = "auto";  // or "never"
};
int run_train(const TrainArgs&);

struct EvalArgs {
  std::string checkpoint;         // here and below: a checkpoint's directory or a run's
  std::vector<std::string> data;  // prefixes; none: the run's validation data
  Device device = Device::kCpu;   // here and below: where the model computes, in float32
};
int run_eval(const EvalArgs&);

struct GenerateArgs {
  std::string checkpoint, prompt;
  std::string tokenizer;  // empty: the checkpoint's
  int64_t max_tokens = 64;
  double temperature = 1;  // 0: the likeliest token
  int64_t top_k = 0;       // 0: all tokens
  uint64_t seed = 1;
  Device device = Device::kCpu;
};
int run_generate(const GenerateArgs&);

struct ScoreArgs {
  std::string checkpoint, tokens, out;
  Device device = Device::kCpu;
};
int run_score(const ScoreArgs&);

struct ImportArgs {
  std::string from, to;
  std::string upcycle;  // "num_experts=8,top_k=2", or empty; then `from` may be a checkpoint
};
int run_import(const ImportArgs&);

struct ExportArgs {
  std::string checkpoint;
  std::string format;  // "hf" or "gguf"
  std::string out;
  std::string arch;           // empty: the one the model fits
  std::string dtype = "f32";  // or "bf16"
};
int run_export(const ExportArgs&);

struct PrepareArgs {
  std::vector<std::string> texts;
  std::string out;        // a prefix
  std::string tokenizer;  // a tokenizer's file; empty: bytes, unless one is trained
  bool train_tokenizer = false;
  int64_t vocab_size = 0;  // of the tokenizer to train
};
int run_prepare(const PrepareArgs&);

struct InspectArgs {
  std::string path;
  bool json = false;
};
int run_inspect(const InspectArgs&);

struct ReportArgs {
  std::vector<std::string> runs;  // directories
  std::string out;                // empty: RUN/report.html
  std::vector<std::string> data;  // prefixes
  std::string evaluation;         // instead of data: a file with what eval printed
};
int run_report(const ReportArgs&);

struct PlanArgs {
  std::string config;
  std::vector<std::string> sets, merges;
  int64_t world = 1;
  bool json = false;
};
int run_plan(const PlanArgs&);

}  // namespace switchyard
