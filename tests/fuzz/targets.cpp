#include "tests/fuzz/targets.h"

#include <zlib.h>
#include <zstd.h>

#include <fstream>

#include "tests/fuzz/seeds.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/config.h"
#include "trainer/data/sentencepiece.h"
#include "trainer/data/text_files.h"
#include "trainer/data/tokenizer.h"
#include "trainer/export/hf_config.h"
#include "trainer/export/hf_folder.h"
#include "trainer/files/files.h"
#include "trainer/metrics/run_picture.h"
#include "trainer/metrics/step_metrics.h"

namespace switchyard::fuzz {
namespace {

void put(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

void use_tokenizer(const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids = tokenizer.encode("ab abc  \xc3\xa4 1234\n\xff <s>");
  (void)tokenizer.decode(ids);
  for (const int32_t id : ids) CHECK(id >= 0 && id < tokenizer.vocab_size(), id);
}

void use_tokens(const TokenFile& file) {
  std::vector<int32_t> tokens(16);
  if (file.tokens() > 0) {
    file.read(0, 16, tokens.data());
    const int64_t document = file.document_of(file.tokens() - 1);
    CHECK(document >= 0 && document < file.documents(), document);
    CHECK(file.document_begin(document) < file.tokens(), document);
  }
  (void)file.fingerprint();
  (void)file.max_token();
  file.check_tokens(1000);
}

void read_blocks(const fs::path& path, const std::string& bytes) {
  put(path, bytes);
  BlockReader reader(path.string());
  for (TextBlock block; reader.next(block);) CHECK(block.text.size() <= (32U << 20), block.text.size());
}

Target safetensors() {
  return {"safetensors",
          safetensors_seeds(),
          [](const std::string& input, const fs::path& folder) {
            put(folder / "t.safetensors", input);
            const SafetensorsFile file(folder / "t.safetensors");
            for (const auto& [name, view] : file.tensors()) {
              CHECK(view.numel() >= 0, name);
              if (!view.bytes.empty()) (void)xxh3_of(view.bytes);
            }
          },
          {}};
}

Target hf_index() {
  return {"model.safetensors.index.json",
          {index_seed()},
          [](const std::string& input, const fs::path& folder) {
            const fs::path model = folder / "model";
            if (!fs::exists(model)) {
              fs::create_directory(model);
              put(model / "model-00001-of-00002.safetensors", safetensors_seeds()[0]);
              put(model / "model-00002-of-00002.safetensors", safetensors_seeds()[1]);
            }
            put(model / "model.safetensors.index.json", input);
            (void)HfFolder(model);
          },
          {}};
}

Target hf_config() {
  return {"config.json",
          hf_config_seeds(),
          [](const std::string& input, const fs::path& folder) {
            put(folder / "config.json", input);
            const HfModel model = read_hf_config(folder / "config.json");
            check_model(model.options, "config.json");
            (void)hf_config_text(model.arch, model.options, DType::kF32, model.source);
          },
          {}};
}

Target manifest() {
  return {"manifest.json",
          {manifest_seed()},
          [](const std::string& input, const fs::path&) {
            (void)to_text(manifest_from_text(input, "manifest.json"));
          },
          sign_manifest};
}

Target model_text() {
  return {"model.txtpb",
          {model_text_seed()},
          [](const std::string& input, const fs::path&) {
            (void)model_to_text(model_from_text(input, "model.txtpb"));
          },
          {}};
}

Target config_text() {
  return {"config.txtpb",
          config_seeds(),
          [](const std::string& input, const fs::path&) {
            (void)parse_config(resolved_text(parse_config(input, "config.txtpb")), "resolved.txtpb");
          },
          {}};
}

Target overrides() {
  return {"--set",
          override_seeds(),
          [](const std::string& input, const fs::path&) {
            (void)parse_config(config_seeds()[0], "config.txtpb", {"data.train=", input});
          },
          {}};
}

Target tokenizer_json() {
  return {"tokenizer.json",
          tokenizer_seeds(),
          [](const std::string& input, const fs::path&) {
            use_tokenizer(*load_tokenizer_json(input, "tokenizer.json"));
          },
          {}};
}

Target sentencepiece() {
  return {"tokenizer.model",
          {sentencepiece_seed()},
          [](const std::string& input, const fs::path&) {
            use_tokenizer(*load_tokenizer_json(sentencepiece_to_json(input, "tokenizer.model"), "made"));
          },
          {}};
}

Target megatron_index() {
  return {"tokens.idx",
          {megatron_index_seed()},
          [](const std::string& input, const fs::path& folder) {
            if (!fs::exists(folder / "m.bin")) put(folder / "m.bin", megatron_tokens());
            put(folder / "m.idx", input);
            use_tokens(TokenFile::open((folder / "m").string()));
          },
          {}};
}

Target bare_tokens() {
  return {"tokens.bin",
          bare_token_seeds(),
          [](const std::string& input, const fs::path& folder) {
            put(folder / "bare.bin", input);
            use_tokens(TokenFile::open((folder / "bare.bin").string()));
          },
          {}};
}

Target sidecar() {
  return {"tokens.json",
          {sidecar_seed()},
          [](const std::string& input, const fs::path&) {
            if (const auto sidecar = parse_sidecar("tokens.json", input)) (void)to_json(*sidecar);
          },
          {}};
}

Target metrics() {
  return {"metrics.jsonl",
          {metrics_seed()},
          [](const std::string& input, const fs::path& folder) {
            put(folder / "metrics.jsonl", input);
            (void)run_picture(folder / "metrics.jsonl");
            const MetricsFile file(folder / "metrics.jsonl", 2);
            CHECK(file.last_step() <= 2, file.last_step());
          },
          {}};
}

Target packed_text(const std::string& name, const std::string& ending, const std::string& seed) {
  return {name,
          {seed},
          [ending](const std::string& input, const fs::path& folder) {
            read_blocks(folder / ("text" + ending), input);
          },
          {}};
}

}  // namespace

std::vector<Target> make_targets() {
  std::vector<Target> targets = {safetensors(),   hf_index(),       hf_config(),   manifest(),
                                 model_text(),    config_text(),    overrides(),   tokenizer_json(),
                                 sentencepiece(), megatron_index(), bare_tokens(), sidecar(),
                                 metrics()};
  targets.push_back(packed_text("text.gz", ".txt.gz", gzip_seed()));
  targets.push_back(packed_text("text.zst", ".txt.zst", zstd_seed()));
  targets.push_back(packed_text("text.jsonl", ".jsonl", jsonl_seed()));
  return targets;
}

}  // namespace switchyard::fuzz
