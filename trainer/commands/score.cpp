#include <charconv>
#include <fstream>

#include "trainer/checkpoint/store.h"
#include "trainer/commands/commands.h"
#include "trainer/job/loaded_model.h"

namespace switchyard {

namespace {

// Token ids of one line, separated by blanks or commas.
std::vector<int32_t> parse_line(const std::string& line, const std::string& where, int64_t vocab) {
  std::vector<int32_t> ids;
  const char *at = line.data(), *end = line.data() + line.size();
  while (true) {
    while (at != end && (*at == ' ' || *at == '\t' || *at == ',' || *at == '\r')) ++at;
    if (at == end) return ids;
    int64_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    const bool ends = next == end || *next == ' ' || *next == '\t' || *next == ',' || *next == '\r';
    if (error != std::errc() || !ends) {
      fail(Fault::kData, where, ":", at - line.data() + 1, ": a token id is expected");
    }
    if (id < 0 || id >= vocab) {
      fail(Fault::kData, where, ":", at - line.data() + 1, ": token ", id, " is not in the vocabulary of ",
           vocab);
    }
    ids.push_back(static_cast<int32_t>(id));
    at = next;
  }
}

std::vector<std::vector<int32_t>> read_lines(const std::string& path, int64_t vocab) {
  std::ifstream in(path);
  if (!in) fail(Fault::kData, path, ": cannot be read");
  std::vector<std::vector<int32_t>> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(parse_line(line, path + ":" + std::to_string(lines.size() + 1), vocab));
  }
  if (in.bad()) fail(Fault::kData, path, ": cannot be read");  // a folder, too
  return lines;
}

void emit_logits(const Transformer& model, const std::vector<int32_t>& ids, const Emit& emit) {
  constexpr int64_t kRows = 256;  // logits held at a time
  if (ids.empty()) return;
  NoGrad guard;
  const auto length = static_cast<int64_t>(ids.size());
  ForwardContext context;
  const Tensor hidden = model.hidden(model.on_device(ids), context).value();
  for (int64_t begin = 0; begin < length; begin += kRows) {
    const Tensor logits = model.logits(hidden, begin, std::min(kRows, length - begin));
    emit(logits.raw(), static_cast<size_t>(logits.bytes()));
  }
}

// What is read is still there after what is written.
void check_output(const fs::path& out, const fs::path& tokens) {
  std::error_code none_there;
  if (fs::equivalent(out, tokens, none_there))
    fail(Fault::kUsage, "--out: ", out.string(), " is the file of token ids");
  const fs::path folder = out.parent_path();
  if (fs::exists(folder / kManifestName) && fs::exists(folder / kModelText))
    fail(Fault::kUsage, "--out: ", out.string(), " lies in a checkpoint, which holds its own files alone");
}

}  // namespace

int run_score(const ScoreArgs& args) {
  check_output(args.out, args.tokens);
  const LoadedModel loaded = load_model(args.checkpoint, args.device);
  const int64_t vocab = loaded.options.vocab_size;
  const auto lines = read_lines(args.tokens, vocab);
  std::vector<TensorSource> tensors;
  for (size_t i = 0; i < lines.size(); ++i) {
    tensors.push_back(
        {"logits." + std::to_string(i),
         FileDType::kF32,
         {static_cast<int64_t>(lines[i].size()), vocab},
         [&model = *loaded.model, &ids = lines[i]](const Emit& emit) { emit_logits(model, ids, emit); }});
  }
  write_safetensors(args.out, std::move(tensors));
  return 0;
}

}  // namespace switchyard
