#include "trainer/commands/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "kernels/check.h"
#include "trainer/config/suggest.h"

namespace switchyard {
namespace {

constexpr const char* kCheckpoint = "A checkpoint's directory, or a run's (its newest checkpoint)";

// CLI11 reads "010" as octal and lets nan through a range.
CLI::Validator decimal(double low, double high, const std::string& range) {
  const auto check = [=](const std::string& text) {
    const size_t digits = text.find_first_not_of("+-");
    const bool leading_zero = digits != std::string::npos && text[digits] == '0' &&
                              digits + 1 < text.size() &&
                              (std::isalnum(static_cast<unsigned char>(text[digits + 1])) != 0);
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const bool number = end != text.c_str() && *end == '\0' && std::isfinite(value) && !leading_zero;
    return number && value >= low && value <= high ? std::string() : "\"" + text + "\" is not " + range;
  };
  return CLI::Validator(check, range);
}

// An unset variable of the shell is no wish for the default.
CLI::Validator not_empty() {
  return CLI::Validator([](const std::string& text) { return text.empty() ? "is empty" : ""; }, "");
}

CLI::Validator integer(double low, const std::string& range) { return decimal(low, 9e15, range); }

void add_overrides(CLI::App& command, std::vector<std::string>& sets, std::vector<std::string>& merges) {
  command.add_option("--set", sets, "Set one field: path=value, list+=value; may be repeated")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
  command
      .add_option("--merge", merges,
                  "Merge a message in text format over the config; may be repeated. Comes before --set")
      ->type_name("TEXT")
      ->allow_extra_args(false);
}

void add_device(CLI::App& command, Device& device) {
  const auto take = [&device](const std::string& name) {
    device = name == name_of(Device::kCuda) ? Device::kCuda : Device::kCpu;
  };
  command.add_option_function<std::string>("--device", take, "Where the model computes, in float32 [CPU]")
      ->check(CLI::IsMember({"CPU", "CUDA"}));
}

CLI::App* add_train(CLI::App& app, TrainArgs& args) {
  CLI::App* command = app.add_subcommand("train", "Train a model");
  command->add_option("CONFIG", args.config, "The experiment, in protobuf text format (docs/config.md)")
      ->required();
  add_overrides(*command, args.sets, args.merges);
  command->add_option("--run-dir", args.run_dir, "The run's directory itself [runs/NAME]")
      ->type_name("DIR")
      ->check(not_empty());
  command
      ->add_option("--resume", args.resume, "auto: go on where the run has a checkpoint; never: start anew")
      ->check(CLI::IsMember({"auto", "never"}))
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  switchyard train configs/quickstart.txtpb --set parallel.expert=1\n"
      "  mpirun -n 2 switchyard train configs/quickstart.txtpb --set optimizer.lr=3e-4 --run-dir "
      "runs/lr3e-4\n"
      "Exit codes: 0 done, 2 usage or config, 3 bad data or checkpoint, 4 non-finite loss, 5 hang or lost "
      "peer,\n"
      "6 out of memory or disk.");
  return command;
}

CLI::App* add_eval(CLI::App& app, EvalArgs& args) {
  CLI::App* command = app.add_subcommand("eval", "Measure the loss of a checkpoint on a whole data set");
  command->add_option("CHECKPOINT", args.checkpoint, kCheckpoint)->required();
  command
      ->add_option("--data", args.data, "Prefix of a token file [the run's validation data]; may be repeated")
      ->type_name("PREFIX")
      ->allow_extra_args(false);
  add_device(*command, args.device);
  command->footer(
      "The last line of stdout is one JSON object: loss, tokens, bits_per_byte (where bytes are known), and\n"
      "layers with the load of each expert. With several data sets a table comes first, with the two "
      "experts\n"
      "that each layer chose most, and the object holds all of them in \"data\" besides their sums.\n"
      "Examples:\n"
      "  switchyard eval runs/quickstart --data data/quickstart/validation\n"
      "  switchyard eval runs/quickstart --data data/quickstart/tokens/de --data "
      "data/quickstart/tokens/ja");
  return command;
}

CLI::App* add_generate(CLI::App& app, GenerateArgs& args) {
  CLI::App* command = app.add_subcommand("generate", "Continue a text");
  command->add_option("CHECKPOINT", args.checkpoint, kCheckpoint)->required();
  command->add_option("--prompt", args.prompt, "The text to continue")->required();
  command
      ->add_option("--tokenizer", args.tokenizer,
                   "tokenizer.json or SentencePiece's .model, for a checkpoint without one")
      ->type_name("FILE");
  command->add_option("--max-tokens", args.max_tokens, "Tokens to add")
      ->check(decimal(1, 1 << 24, "an integer from 1 to 16777216"))
      ->capture_default_str();
  command->add_option("--temperature", args.temperature, "0: always the likeliest token")
      ->check(decimal(0, 1e6, "a number from 0"))
      ->capture_default_str();
  command->add_option("--top-k", args.top_k, "Draw from the k likeliest tokens only; 0: from all")
      ->check(integer(0, "an integer from 0"))
      ->capture_default_str();
  command->add_option("--seed", args.seed, "The same seed draws the same text")
      ->check(decimal(0, 1.8446744073709552e19, "an integer from 0"))
      ->capture_default_str();
  add_device(*command, args.device);
  command->footer(
      "Example:\n  switchyard generate runs/quickstart --prompt 'Once upon a time' --temperature 0.8 --top-k "
      "40");
  return command;
}

CLI::App* add_score(CLI::App& app, ScoreArgs& args) {
  CLI::App* command = app.add_subcommand("score", "Write the logits of token sequences");
  command->add_option("CHECKPOINT", args.checkpoint, kCheckpoint)->required();
  command->add_option("--tokens", args.tokens, "Token ids, one sequence a line")
      ->required()
      ->type_name("FILE");
  command->add_option("--out", args.out, "safetensors: logits.N [T, vocab] for line N from 0")
      ->required()
      ->type_name("FILE");
  add_device(*command, args.device);
  command->footer("Example:\n  switchyard score runs/quickstart --tokens ids.txt --out logits.safetensors");
  return command;
}

CLI::App* add_import(CLI::App& app, ImportArgs& args) {
  CLI::App* command = app.add_subcommand("import", "Make a checkpoint of a Hugging Face model");
  command
      ->add_option("--from", args.from,
                   "Directory with config.json and safetensors; with --upcycle also a checkpoint")
      ->required()
      ->type_name("HF_DIR");
  command->add_option("--to", args.to, "The checkpoint's directory, which must not exist")
      ->required()
      ->type_name("CHECKPOINT");
  command
      ->add_option("--upcycle", args.upcycle,
                   "A dense model becomes a mixture of copies of itself: num_experts=8,top_k=2")
      ->type_name("TEXT")
      ->check(not_empty());
  command->footer(
      "Examples:\n  switchyard import --from OLMoE-1B-7B --to olmoe\n"
      "  switchyard import --from Qwen3-0.6B --to mixture --upcycle num_experts=8,top_k=2");
  return command;
}

CLI::App* add_export(CLI::App& app, ExportArgs& args) {
  CLI::App* command = app.add_subcommand("export", "Write a checkpoint for other programs");
  command->add_option("CHECKPOINT", args.checkpoint, kCheckpoint)->required();
  command->add_option("--format", args.format, "hf: Hugging Face; gguf: llama.cpp")
      ->required()
      ->check(CLI::IsMember({"hf", "gguf"}));
  command->add_option("--out", args.out, "Directory to write")->required()->type_name("DIR");
  command->add_option("--arch", args.arch, "Architecture's name [the one the model fits]")->type_name("NAME");
  command->add_option("--dtype", args.dtype, "Type of the weights")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  command->footer("Example:\n  switchyard export runs/quickstart --format hf --out quickstart-hf");
  return command;
}

CLI::App* add_prepare(CLI::App& app, PrepareArgs& args) {
  CLI::App* command = app.add_subcommand("prepare", "Turn texts into token files");
  command->add_option("TEXT", args.texts, "Text files")->required();
  command->add_option("--out", args.out, "Writes PREFIX.bin and PREFIX.idx")->required()->type_name("PREFIX");
  CLI::Option* file =
      command->add_option("--tokenizer", args.tokenizer, "A tokenizer's file [bytes]")->type_name("FILE");
  CLI::Option* train =
      command->add_flag("--train-tokenizer", args.train_tokenizer, "Train a tokenizer on the texts");
  CLI::Option* size = command->add_option("--vocab-size", args.vocab_size, "Tokens of the trained tokenizer")
                          ->check(integer(1, "an integer from 1"));
  file->excludes(train);
  size->needs(train);
  train->needs(size);
  command->footer(
      "Examples:\n"
      "  switchyard prepare book.txt --out data/book\n"
      "  switchyard prepare *.txt --out data/mine --train-tokenizer --vocab-size 8192");
  return command;
}

CLI::App* add_inspect(CLI::App& app, InspectArgs& args) {
  CLI::App* command = app.add_subcommand("inspect", "Show what is in a checkpoint, token file or run");
  command->add_option("PATH", args.path, "A checkpoint, a run, or a token file's prefix")->required();
  command->add_flag("--json", args.json, "One JSON object");
  command->footer("Example:\n  switchyard inspect runs/quickstart --json");
  return command;
}

CLI::App* add_report(CLI::App& app, ReportArgs& args) {
  CLI::App* command = app.add_subcommand("report", "Draw a run as one HTML file");
  command->add_option("RUN", args.runs, "A run's directory; curves of several share their charts")
      ->required();
  command->add_option("--out", args.out, "The file to write [RUN/report.html]")->type_name("FILE");
  CLI::Option* data = command->add_option("--data", args.data,
                                          "Prefix of a token file: its loss and its experts under the newest "
                                          "checkpoint; may be repeated");
  data->type_name("PREFIX")->allow_extra_args(false);
  command
      ->add_option("--evaluation", args.evaluation,
                   "Instead of --data: a file with what eval printed of them")
      ->type_name("FILE")
      ->excludes(data);
  command->footer(
      "The file needs nothing beside it. A run that is still going can be drawn as well.\n"
      "Examples:\n"
      "  switchyard report runs/quickstart --data data/quickstart/tokens/de --data "
      "data/quickstart/tokens/ja\n"
      "  switchyard report runs/lr1e-3 runs/lr3e-3 --out compared.html");
  return command;
}

CLI::App* add_plan(CLI::App& app, PlanArgs& args) {
  CLI::App* command =
      app.add_subcommand("plan", "Parameters, memory and traffic per rank, before anything is started");
  command->add_option("CONFIG", args.config, "The experiment, in protobuf text format (docs/config.md)")
      ->required();
  add_overrides(*command, args.sets, args.merges);
  command->add_option("--world", args.world, "Number of ranks")
      ->required()
      ->check(decimal(1, 1 << 20, "an integer from 1 to 1048576"))
      ->type_name("N");
  command->add_flag("--json", args.json, "One JSON object");
  command->footer(
      "Example:\n  switchyard plan configs/quickstart.txtpb --world 8 --set parallel.expert=4 --set "
      "train.global_batch_size=32");
  return command;
}

// Everything the command line can fill; the chosen subcommand says which part counts.
struct Program {
  CLI::App app{"Switchyard trains Mixture-of-Experts transformers on CPUs (MPI) and GPUs (NCCL).",
               "switchyard"};
  TrainArgs train_args;
  EvalArgs eval_args;
  GenerateArgs generate_args;
  ScoreArgs score_args;
  ImportArgs import_args;
  ExportArgs export_args;
  PrepareArgs prepare_args;
  InspectArgs inspect_args;
  ReportArgs report_args;
  PlanArgs plan_args;
  CLI::App* train = add_train(app, train_args);
  CLI::App* eval = add_eval(app, eval_args);
  CLI::App* generate = add_generate(app, generate_args);
  CLI::App* score = add_score(app, score_args);
  CLI::App* import_model = add_import(app, import_args);
  CLI::App* export_model = add_export(app, export_args);
  CLI::App* prepare = add_prepare(app, prepare_args);
  CLI::App* inspect = add_inspect(app, inspect_args);
  CLI::App* report = add_report(app, report_args);
  CLI::App* plan = add_plan(app, plan_args);

  CommandLine chosen() const {
    if (train->parsed()) return train_args;
    if (eval->parsed()) return eval_args;
    if (generate->parsed()) return generate_args;
    if (score->parsed()) return score_args;
    if (import_model->parsed()) return import_args;
    if (export_model->parsed()) return export_args;
    if (prepare->parsed()) return prepare_args;
    if (inspect->parsed()) return inspect_args;
    if (report->parsed()) return report_args;
    return plan_args;
  }
};

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

// The first argument must name a command or be an option of the program's.
void check_command(const CLI::App& app, const std::vector<std::string>& arguments) {
  const std::vector<std::string> names = command_names(app);
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  if (arguments.empty()) fail(Fault::kUsage, "a command is missing: ", list, ". See switchyard --help");
  const std::string& first = arguments[0];
  if (first.starts_with('-')) {
    if (first == "--help" || first == "-h" || first == "--version") return;
    fail(Fault::kUsage, "unknown option \"", first, "\"; a command comes first: ", list);
  }
  if (std::find(names.begin(), names.end(), first) != names.end()) return;
  const std::string hint = config::did_you_mean(first, names);
  fail(Fault::kUsage, "unknown command \"", first, "\"", hint.empty() ? "; the commands: " + list : hint);
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

// CLI11 lists what is left over from the back, and with it what followed an option that it does not know.
[[noreturn]] void refuse_leftovers(const CLI::App& app) {
  const CLI::App& command = *app.get_subcommands().at(0);
  const std::vector<std::string> left = app.remaining(true);
  const auto option =
      std::find_if(left.begin(), left.end(), [](const std::string& text) { return text.starts_with('-'); });
  const std::string& first = option != left.end() ? *option : left.front();
  std::string hint;
  if (option != left.end()) {
    std::vector<std::string> names;
    for (const CLI::Option* known : command.get_options()) names.push_back(known->get_name());
    hint = config::did_you_mean(first.substr(0, first.find('=')), names);
    if (hint.empty() && command.get_option_no_throw("--set") != nullptr)
      hint = "; a field of the config is set by --set PATH=VALUE";
  }
  fail(Fault::kUsage, option != left.end() ? "unknown option \"" : "unexpected argument \"", first, "\"",
       hint, ". See switchyard ", command.get_name(), " --help");
}

}  // namespace

CommandLine parse_command_line(const std::vector<std::string>& arguments) {
  Program program;
  program.app.require_subcommand(1);
  program.app.set_version_flag("--version", "switchyard " SWITCHYARD_VERSION);
  program.app.footer("switchyard COMMAND --help describes a command.");
  check_command(program.app, arguments);
  try {
    // CLI11 takes them from the back.
    program.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    return Message{program.app.help()};
  } catch (const CLI::CallForVersion& version) {
    return Message{std::string(version.what()) + "\n"};
  } catch (const CLI::ExtrasError&) {
    refuse_leftovers(program.app);
  } catch (const CLI::ParseError& error) {
    const auto chosen = program.app.get_subcommands();
    const std::string command = chosen.empty() ? "" : chosen[0]->get_name() + " ";
    fail(Fault::kUsage, one_line(error.what()), ". See switchyard ", command, "--help");
  }
  return program.chosen();
}

}  // namespace switchyard
