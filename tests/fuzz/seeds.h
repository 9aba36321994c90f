// Inputs that are in order, small, and made here: nothing is downloaded.
#pragma once

#include <string>
#include <vector>

namespace switchyard::fuzz {

std::vector<std::string> safetensors_seeds();  // two files with different tensors
std::string index_seed();                      // over those two, named model-0000N-of-00002.safetensors
std::vector<std::string> hf_config_seeds();
std::string manifest_seed();
void sign_manifest(std::string& text);  // gives it the checksum of what it says
std::string model_text_seed();
std::vector<std::string> config_seeds();
std::vector<std::string> override_seeds();
std::vector<std::string> tokenizer_seeds();
std::string sentencepiece_seed();
std::string megatron_tokens();      // of a .bin
std::string megatron_index_seed();  // of the .idx beside it
std::vector<std::string> bare_token_seeds();
std::string sidecar_seed();
std::string metrics_seed();
std::string gzip_seed();
std::string zstd_seed();
std::string jsonl_seed();

}  // namespace switchyard::fuzz
