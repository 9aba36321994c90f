#include "trainer/data/prepare.h"

#include <omp.h>

#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "kernels/check.h"
#include "trainer/data/text_files.h"

namespace switchyard {
namespace {

void make_output_folder(const std::string& prefix) {
  const fs::path folder = fs::path(prefix).parent_path();
  if (!folder.empty()) make_directories(folder);
}

// The tokens of one block; ends[] are the places where a document ends.
struct Tokenized {
  std::vector<int32_t> tokens;
  std::vector<size_t> ends;
  int64_t text_bytes = 0;
  std::exception_ptr error;
};

void add_text(const Tokenizer& tokenizer, std::string_view text, Tokenized& out) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  out.tokens.insert(out.tokens.end(), ids.begin(), ids.end());
  out.text_bytes += static_cast<int64_t>(text.size());
}

void end_document(const Tokenizer& tokenizer, Tokenized& out) {
  if (tokenizer.eos()) out.tokens.push_back(*tokenizer.eos());
  out.ends.push_back(out.tokens.size());
}

std::string text_of_line(std::string_view line, const std::string& path, int64_t number) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (json.is_discarded()) fail(Fault::kData, path, ":", number, ": is no JSON");
  if (!json.is_object() || !json.contains("text") || !json["text"].is_string()) {
    fail(Fault::kData, path, ":", number, ": has no string named \"text\"");
  }
  return json["text"].get<std::string>();
}

// Calls f(text of a document) for every line that is not blank.
template <class F>
void for_each_line(const TextBlock& block, const std::string& path, F&& f) {
  std::string_view rest = block.text;
  for (int64_t number = block.first_line; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) f(text_of_line(line, path, number));
  }
}

// A document under way (`open`) ends with the block that ends its file.
Tokenized tokenize(const Tokenizer& tokenizer, const TextBlock& block, const std::string& path, bool open) {
  Tokenized out;
  if (!block.json_lines) {
    add_text(tokenizer, block.text, out);
    if (block.ends_document && (open || !block.text.empty())) end_document(tokenizer, out);
    return out;
  }
  for_each_line(block, path, [&](const std::string& text) {
    if (text.empty()) return;
    add_text(tokenizer, text, out);
    end_document(tokenizer, out);
  });
  return out;
}

void write(const Tokenized& block, TokenFileWriter& writer) {
  size_t begin = 0;
  const std::span<const int32_t> tokens(block.tokens);
  for (const size_t end : block.ends) {
    writer.append(tokens.subspan(begin, end - begin));
    writer.end_document();
    begin = end;
  }
  writer.append(tokens.subspan(begin));
}

// All blocks of all files in order, a few for each thread at a time.
class BlockStream {
 public:
  struct Item {
    TextBlock block;
    std::string path;
    bool continues = false;  // the document began in an earlier block
  };

  explicit BlockStream(std::vector<std::string> files) : files_(std::move(files)) {
    for (const std::string& file : files_) total_ += static_cast<int64_t>(std::filesystem::file_size(file));
  }

  // The next blocks; none at the end.
  std::vector<Item> next(size_t count) {
    std::vector<Item> items;
    while (items.size() < count && (reader_ || file_ < files_.size())) {
      if (!reader_) {
        reader_.emplace(files_[file_]);
        continues_ = false;
      }
      Item& item = items.emplace_back();
      item.path = files_[file_];
      item.continues = continues_;
      if (reader_->next(item.block)) {
        continues_ = true;
      } else {
        items.pop_back();
        finished_ += reader_->position();
        reader_.reset();
        ++file_;
      }
    }
    return items;
  }

  int64_t done() const { return finished_ + (reader_ ? reader_->position() : 0); }
  int64_t total() const { return total_; }

 private:
  std::vector<std::string> files_;
  size_t file_ = 0;
  std::optional<BlockReader> reader_;
  bool continues_ = false;
  int64_t finished_ = 0, total_ = 0;
};

std::vector<Tokenized> tokenize(const Tokenizer& tokenizer, const std::vector<BlockStream::Item>& items) {
  std::vector<Tokenized> blocks(items.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < items.size(); ++i) {
    try {
      blocks[i] = tokenize(tokenizer, items[i].block, items[i].path, items[i].continues);
    } catch (...) {
      blocks[i].error = std::current_exception();
    }
  }
  for (const Tokenized& block : blocks) {
    if (block.error) std::rethrow_exception(block.error);  // the first in the order of the files
  }
  return blocks;
}

}  // namespace

Sidecar prepare(const PrepareOptions& options, const std::function<void(const PrepareProgress&)>& report) {
  if (options.train_tokenizer) fail(Fault::kUsage, "this build cannot train a tokenizer");
  BlockStream stream(find_text_files(options.inputs));
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(options.tokenizer);
  make_output_folder(options.out);
  TokenFileWriter writer(options.out, token_type_for(tokenizer->vocab_size()));
  Sidecar sidecar{.tokenizer = tokenizer->name(),
                  .tokenizer_fingerprint = tokenizer->fingerprint(),
                  .vocab_size = tokenizer->vocab_size(),
                  .sources = options.inputs};
  const auto batch = static_cast<size_t>(omp_get_max_threads()) * 4;
  for (auto items = stream.next(batch); !items.empty(); items = stream.next(batch)) {
    for (const Tokenized& block : tokenize(*tokenizer, items)) {
      write(block, writer);
      sidecar.text_bytes += block.text_bytes;
    }
    report({"tokenising", stream.done(), stream.total()});
  }
  if (writer.tokens() == 0) fail(Fault::kData, options.inputs.front(), ": there is no text in it");
  return writer.finish(sidecar);
}

}  // namespace switchyard
