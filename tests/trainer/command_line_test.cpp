#include "trainer/commands/command_line.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <new>
#include <system_error>

#include "kernels/check.h"
#include "trainer/commands/exit_code.h"

namespace switchyard {
namespace {

using Arguments = std::vector<std::string>;

template <class Args>
Args parse_as(const Arguments& arguments) {
  return std::get<Args>(parse_command_line(arguments));
}

std::string usage_error(const Arguments& arguments) {
  try {
    parse_command_line(arguments);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "no error for " << (arguments.empty() ? "" : arguments[0]);
  return "";
}

TEST(CommandLine, TrainTakesRepeatedOverridesAnywhere) {
  const auto args = parse_as<TrainArgs>({"train", "--set", "a=1", "c.txtpb", "--merge", "model { }", "--set",
                                         "b=[x, y]", "--set=c=-1", "--run-dir", "d", "--resume", "never"});
  EXPECT_EQ(args.config, "c.txtpb");
  EXPECT_EQ(args.sets, (Arguments{"a=1", "b=[x, y]", "c=-1"}));
  EXPECT_EQ(args.merges, (Arguments{"model { }"}));
  EXPECT_EQ(args.run_dir, "d");
  EXPECT_EQ(args.resume, "never");
}

TEST(CommandLine, GenerateTakesAnyPrompt) {
  for (const char* prompt : {"", "-x", "--help me", "[a, b]", "a\nb", "\xc3\xa4"}) {
    const auto args =
        parse_as<GenerateArgs>({"generate", "run", "--prompt", prompt, "--max-tokens", "5", "--temperature",
                                "0.5", "--top-k", "3", "--seed", "18446744073709551615"});
    EXPECT_EQ(args.prompt, prompt);
    EXPECT_EQ(args.max_tokens, 5);
    EXPECT_EQ(args.temperature, 0.5);
    EXPECT_EQ(args.top_k, 3);
    EXPECT_EQ(args.seed, UINT64_MAX);
  }
}

TEST(CommandLine, TheOtherCommandsTakeTheirOptions) {
  EXPECT_EQ(parse_as<EvalArgs>({"eval", "ck", "--data", "p", "--data", "q"}).data,
            (std::vector<std::string>{"p", "q"}));
  EXPECT_EQ(parse_as<EvalArgs>({"eval", "ck"}).device, Device::kCpu);
  EXPECT_EQ(parse_as<EvalArgs>({"eval", "ck", "--device", "CUDA"}).device, Device::kCuda);
  EXPECT_EQ(parse_as<GenerateArgs>({"generate", "ck", "--prompt", "p", "--device", "CPU"}).device,
            Device::kCpu);
  EXPECT_EQ(parse_as<ScoreArgs>({"score", "ck", "--tokens", "t", "--out", "o"}).out, "o");
  EXPECT_EQ(parse_as<ImportArgs>({"import", "--from", "f", "--to", "t"}).to, "t");
  EXPECT_EQ(parse_as<ExportArgs>(
                {"export", "ck", "--format", "gguf", "--out", "o", "--arch", "olmoe", "--dtype", "bf16"})
                .arch,
            "olmoe");
  EXPECT_EQ(parse_as<PrepareArgs>({"prepare", "a", "b", "--out", "o"}).texts, (Arguments{"a", "b"}));
  EXPECT_EQ(parse_as<PrepareArgs>({"prepare", "a", "--out", "o", "--train-tokenizer", "--vocab-size", "300"})
                .vocab_size,
            300);
  EXPECT_TRUE(parse_as<InspectArgs>({"inspect", "p", "--json"}).json);
  EXPECT_EQ(parse_as<PlanArgs>({"plan", "c", "--world", "8", "--set", "a=1"}).world, 8);
}

TEST(CommandLine, HelpAndVersionAreMessages) {
  EXPECT_NE(parse_as<Message>({"--help"}).text.find("train"), std::string::npos);
  EXPECT_NE(parse_as<Message>({"train", "--help"}).text.find("--run-dir"), std::string::npos);
  EXPECT_EQ(parse_as<Message>({"--version"}).text.rfind("switchyard ", 0), 0u);
}

TEST(CommandLine, WhatItCannotTakeIsOneLine) {
  const std::vector<std::pair<Arguments, std::string>> cases = {
      {{}, "a command is missing"},
      {{"trian"}, "did you mean \"train\"?"},
      {{"xyz"}, "the commands: train"},
      {{"--nonsense"}, "--nonsense"},
      {{"train"}, "CONFIG is required"},
      {{"train", "c", "d"}, "unexpected argument \"d\""},
      {{"train", "c", "--sett", "a=1"}, "unknown option \"--sett\"; did you mean \"--set\"?"},
      {{"train", "--lr", "3", "c"}, "unknown option \"--lr\"; a field of the config is set by --set"},
      {{"eval", "c", "--dta=x"}, "did you mean \"--data\"?"},
      {{"train", "c", "--set"}, "--set"},
      {{"train", "c", "--resume", "maybe"}, "--resume"},
      {{"train", "c", "--run-dir", "a", "--run-dir", "b"}, "--run-dir"},
      {{"eval"}, "CHECKPOINT is required"},
      {{"eval", "c", "--device", "TPU"}, "--device: TPU not in {CPU,CUDA}"},
      {{"generate", "c"}, "--prompt is required"},
      {{"generate", "c", "--prompt", "x", "--max-tokens", "0"}, "an integer from 1"},
      {{"generate", "c", "--prompt", "x", "--max-tokens", "010"}, "an integer from 1"},
      {{"generate", "c", "--prompt", "x", "--max-tokens", "1.5"}, "--max-tokens"},
      {{"generate", "c", "--prompt", "x", "--temperature", "nan"}, "a number from 0"},
      {{"generate", "c", "--prompt", "x", "--temperature", "-1"}, "a number from 0"},
      {{"generate", "c", "--prompt", "x", "--seed", "-1"}, "an integer from 0"},
      {{"export", "c", "--format", "onnx", "--out", "o"}, "--format"},
      {{"prepare", "--out", "o"}, "TEXT is required"},
      {{"prepare", "a", "--out", "o", "--vocab-size", "300"}, "--train-tokenizer"},
      {{"prepare", "a", "--out", "o", "--train-tokenizer"}, "--vocab-size"},
      {{"plan", "c"}, "--world is required"},
      {{"plan", "c", "--world", "0"}, "an integer from 1"},
  };
  for (const auto& [arguments, part] : cases) {
    const std::string error = usage_error(arguments);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

TEST(ExitCode, FollowsTheFault) {
  EXPECT_EQ(exit_code_of(Error(Fault::kUsage, "")), 2);
  EXPECT_EQ(exit_code_of(Error(Fault::kData, "")), 3);
  EXPECT_EQ(exit_code_of(Error(Fault::kNonFinite, "")), 4);
  EXPECT_EQ(exit_code_of(Error(Fault::kPeer, "")), 5);
  EXPECT_EQ(exit_code_of(std::bad_alloc()), 6);
  EXPECT_EQ(exit_code_of(std::length_error("")), 6);
  EXPECT_EQ(exit_code_of(std::filesystem::filesystem_error("", std::make_error_code(std::errc::io_error))),
            6);
  EXPECT_EQ(
      exit_code_of(std::filesystem::filesystem_error("", std::make_error_code(std::errc::permission_denied))),
      2);
  EXPECT_EQ(exit_code_of(std::system_error(std::make_error_code(std::errc::no_space_on_device))), 6);
  EXPECT_EQ(exit_code_of(std::runtime_error("")), 1);
}

TEST(ReportAndExitCode, SpeaksOnlyWhereAsked) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(report_and_exit_code(Error(Fault::kData, "a message"), true), 3);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "switchyard: a message\n");
  testing::internal::CaptureStderr();
  EXPECT_EQ(report_and_exit_code(Error(Fault::kData, "a message"), false), 3);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace switchyard
