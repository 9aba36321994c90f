#include "trainer/data/prepare.h"

#include <omp.h>

#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "kernels/check.h"
#include "trainer/data/bpe_trainer.h"
#include "trainer/data/text_files.h"
#include "trainer/files/files.h"

namespace switchyard {
namespace {

void make_output_folder(const std::string& prefix) {
  const fs::path folder = fs::path(prefix).parent_path();
  if (!folder.empty()) make_directories(folder);
}

using Report = std::function<void(const PrepareProgress&)>;

constexpr int64_t kMaxVocabulary = 1 << 24;

// The tokens of one block; ends[] are the places where a document ends.
struct Tokenized {
  std::vector<int32_t> tokens;
  std::vector<size_t> ends;
  int64_t text_bytes = 0;
};

void add_text(const Tokenizer& tokenizer, std::string_view text, bool first, Tokenized& out) {
  const std::vector<int32_t> ids = tokenizer.encode_part(text, first);
  out.tokens.insert(out.tokens.end(), ids.begin(), ids.end());
  out.text_bytes += static_cast<int64_t>(text.size());
}

void end_document(const Tokenizer& tokenizer, Tokenized& out) {
  if (tokenizer.eos()) out.tokens.push_back(*tokenizer.eos());
  out.ends.push_back(out.tokens.size());
}

std::string text_of_line(std::string_view line, const std::string& path, int64_t number) {
  // The parser takes a NUL for the end.
  if (line.find('\0') != line.npos) fail(Fault::kData, path, ":", number, ": is no JSON (a NUL byte)");
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
    add_text(tokenizer, block.text, !open, out);
    if (block.ends_document && (open || !block.text.empty())) end_document(tokenizer, out);
    return out;
  }
  for_each_line(block, path, [&](const std::string& text) {
    if (text.empty()) return;
    add_text(tokenizer, text, true, out);
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
      Item item;
      item.path = files_[file_];
      item.continues = continues_;
      if (reader_->next(item.block)) {
        items.push_back(std::move(item));
        continues_ = true;
      } else {
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

// f(i) for every item on all threads; the first error in the order of the files is thrown again.
template <class F>
void in_parallel(size_t count, F&& f) {
  std::vector<std::exception_ptr> errors(count);
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < count; ++i) {
    try {
      f(i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

size_t blocks_at_a_time() { return static_cast<size_t>(omp_get_max_threads()) * 4; }

std::string learn_tokenizer(const std::vector<std::string>& files, int64_t vocab_size, const Report& report) {
  if (vocab_size <= BpeTrainer::kFirstMerge || vocab_size > kMaxVocabulary) {
    fail(Fault::kUsage, "prepare: --vocab-size ", vocab_size, " is not between ", BpeTrainer::kFirstMerge + 1,
         " and ", kMaxVocabulary);
  }
  BpeTrainer trainer;
  BlockStream stream(files);
  for (auto items = stream.next(blocks_at_a_time()); !items.empty();
       items = stream.next(blocks_at_a_time())) {
    std::vector<BpeTrainer::Counts> counts(items.size());
    in_parallel(items.size(), [&](size_t i) {
      const auto& [block, path, continues] = items[i];
      if (!block.json_lines) {
        counts[i] = trainer.count_words(block.text);
        return;
      }
      for_each_line(block, path, [&](const std::string& text) {
        for (const auto& [word, count] : trainer.count_words(text)) counts[i][word] += count;
      });
    });
    for (const BpeTrainer::Counts& part : counts) trainer.add(part);
    report({"learning the vocabulary", stream.done(), stream.total()});
  }
  return trainer.train(vocab_size);
}

std::unique_ptr<Tokenizer> make_tokenizer(const PrepareOptions& options,
                                          const std::vector<std::string>& files, const Report& report) {
  if (!options.train_tokenizer) return load_tokenizer(options.tokenizer);
  return load_tokenizer_json(learn_tokenizer(files, options.vocab_size, report), "the learned tokenizer");
}

int64_t tokenize_all(const Tokenizer& tokenizer, const std::vector<std::string>& files,
                     TokenFileWriter& writer, const Report& report) {
  BlockStream stream(files);
  int64_t text_bytes = 0;
  for (auto items = stream.next(blocks_at_a_time()); !items.empty();
       items = stream.next(blocks_at_a_time())) {
    std::vector<Tokenized> blocks(items.size());
    in_parallel(items.size(), [&](size_t i) {
      blocks[i] = tokenize(tokenizer, items[i].block, items[i].path, items[i].continues);
    });
    for (const Tokenized& block : blocks) {
      write(block, writer);
      text_bytes += block.text_bytes;
    }
    report({"tokenising", stream.done(), stream.total()});
  }
  return text_bytes;
}

void keep_inputs(const std::vector<std::string>& files, const std::string& out) {
  for (const char* ending : {".bin", ".idx", ".json", ".tokenizer.json"})
    for (const std::string& file : files) {
      std::error_code ignored;
      if (fs::equivalent(file, out + ending, ignored))
        fail(Fault::kUsage, "prepare: --out ", out, " would write over its own input ", file);
    }
}

}  // namespace

Sidecar prepare(const PrepareOptions& options, const Report& report) {
  const std::vector<std::string> files = find_text_files(options.inputs);
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(options, files, report);
  keep_inputs(files, options.out);
  make_output_folder(options.out);
  TokenFileWriter writer(options.out, token_type_for(tokenizer->vocab_size()));
  const int64_t text_bytes = tokenize_all(*tokenizer, files, writer, report);
  if (writer.tokens() == 0) fail(Fault::kData, options.inputs.front(), ": there is no text in it");
  const std::string name = tokenizer->name();
  return writer.finish({.tokenizer = name,
                        .tokenizer_fingerprint = tokenizer->fingerprint(),
                        .vocab_size = tokenizer->vocab_size(),
                        .text_bytes = text_bytes,
                        .sources = options.inputs},
                       name == "byte" ? "" : tokenizer->to_json());
}

}  // namespace switchyard
