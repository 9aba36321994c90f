#include <cstdio>

#include "trainer/commands/commands.h"
#include "trainer/job/generation.h"
#include "trainer/job/loaded_model.h"

namespace switchyard {

namespace {

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

int run_generate(const GenerateArgs& args) {
  LoadedModel loaded = load_model(args.checkpoint, args.device);
  if (!args.tokenizer.empty()) loaded.tokenizer = load_tokenizer(args.tokenizer);
  if (!loaded.tokenizer)
    fail(Fault::kData, args.checkpoint, ": the checkpoint has no tokenizer; give one with --tokenizer");
  std::vector<int32_t> ids = loaded.tokenizer->encode(args.prompt);
  if (ids.empty()) {
    // No prompt: the model begins as after the end of a document.
    const std::optional<int32_t> start =
        loaded.tokenizer->bos() ? loaded.tokenizer->bos() : loaded.tokenizer->eos();
    if (!start) fail(Fault::kUsage, "--prompt is empty, and the tokenizer has no token to begin with");
    ids.push_back(*start);
  }
  check_vocabulary(ids, loaded.options.vocab_size, "--prompt", Fault::kData);  // before any of it is shown
  StreamDecoder decoder(*loaded.tokenizer);
  print(args.prompt);
  generate(*loaded.model, ids, loaded.tokenizer->eos(),
           {.max_tokens = args.max_tokens,
            .temperature = args.temperature,
            .top_k = args.top_k,
            .seed = args.seed},
           make_self(), [&](int32_t id) { print(decoder.push(id)); });
  print(decoder.finish() + "\n");
  return 0;
}

}  // namespace switchyard
