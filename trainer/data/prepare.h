// Text into a token file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trainer/data/token_file.h"
#include "trainer/data/tokenizer.h"

namespace switchyard {

struct PrepareOptions {
  std::vector<std::string> inputs;  // files and folders (text_files.h)
  std::string out;                  // PREFIX
  std::string tokenizer = "byte";   // or a file
  bool train_tokenizer = false;     // learn a byte-level BPE from the inputs instead
  int64_t vocab_size = 0;           // of that
};

struct PrepareProgress {
  const char* task;     // "learning the vocabulary", "tokenising"
  int64_t done, total;  // bytes of the input files
};

// Every file, or line of JSON lines, becomes a document that ends with the tokenizer's eos, where it has one;
// empty ones are left out. Blocks are tokenised by all threads and written in order, so the files do not
// depend on their number. Writes PREFIX.bin, .idx and .json, and PREFIX.tokenizer.json unless the tokenizer
// is the byte-level one. On failure none of them.
Sidecar prepare(const PrepareOptions& options, const std::function<void(const PrepareProgress&)>& report);

// What `inspect` says about a token file, for people or as JSON. Checks vocabulary and checksums where they
// are known.
std::string describe_tokens(const std::string& prefix, bool json);

}  // namespace switchyard
