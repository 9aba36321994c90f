#include "trainer/export/export_gguf.h"

#include "trainer/export/arch.h"
#include "trainer/export/gguf.h"
#include "trainer/export/gguf_arch.h"
#include "trainer/export/gguf_tokenizer.h"
#include "trainer/export/output.h"

namespace switchyard {
namespace {

using kernels::ScoreFunction;

constexpr int64_t kAllF32 = 0, kMostlyBF16 = 32;  // general.file_type

int64_t context_length(const StoredModel& model) {
  const auto found = model.source.find("max_position_embeddings");
  const bool given = found != model.source.end() && found->is_number_unsigned() && *found <= INT32_MAX;
  return given ? found->get<int64_t>() : kDefaultContext;
}

void write_attention_keys(GgufFile& file, const std::string& a, const ModelOptions& o) {
  file.set_u32(a + ".attention.head_count", o.num_attention_heads);
  file.set_u32(a + ".attention.head_count_kv", o.num_key_value_heads);
  file.set_u32(a + ".attention.key_length", o.head_dim);
  file.set_u32(a + ".attention.value_length", o.head_dim);
  file.set_f32(a + ".attention.layer_norm_rms_epsilon", o.rms_norm_eps);
  file.set_u32(a + ".rope.dimension_count", o.rotary_dim());
  file.set_f32(a + ".rope.freq_base", o.rope_theta);
}

void write_moe_keys(GgufFile& file, GgufArch arch, const std::string& a, const ModelOptions& o) {
  const MoeOptions& m = *o.moe;
  file.set_u32(a + ".expert_count", m.num_experts);
  file.set_u32(a + ".expert_used_count", m.top_k);
  file.set_u32(a + ".expert_feed_forward_length", m.moe_intermediate_size);
  if (m.shared_expert_intermediate_size > 0)
    file.set_u32(a + ".expert_shared_feed_forward_length", m.shared_expert_intermediate_size);
  if (arch != GgufArch::kGlm4Moe) return;
  int64_t dense = 0;
  while (dense < o.num_layers && !o.is_moe(dense)) ++dense;
  const int64_t shared = m.shared_expert_intermediate_size / m.moe_intermediate_size;
  file.set_u32(a + ".leading_dense_block_count", dense);
  file.set_u32(a + ".expert_shared_count", std::max<int64_t>(shared, 1));
  file.set_u32(a + ".expert_gating_func", m.score_function == ScoreFunction::kSigmoid ? 2 : 1);
  file.set_bool(a + ".expert_weights_norm", is_normalized(m));
  file.set_f32(a + ".expert_weights_scale", m.topk_scaling_factor);
}

void write_keys(GgufFile& file, GgufArch arch, const StoredModel& model, DType dtype) {
  const ModelOptions& o = model.options;
  const std::string a = name_of(arch);
  file.set_text("general.architecture", a);
  file.set_text("general.type", "model");
  file.set_text("general.name", "switchyard");
  file.set_u32("general.file_type", dtype == DType::kBF16 ? kMostlyBF16 : kAllF32);
  file.set_u32(a + ".block_count", o.num_layers);
  file.set_u32(a + ".context_length", context_length(model));
  file.set_u32(a + ".embedding_length", o.hidden_size);
  // llama reads the experts' width from here.
  const bool expert_width = o.moe && (arch == GgufArch::kLlama || o.intermediate_size == 0);
  file.set_u32(a + ".feed_forward_length", expert_width ? o.moe->moe_intermediate_size : o.intermediate_size);
  file.set_u32(a + ".vocab_size", o.vocab_size);
  write_attention_keys(file, a, o);
  if (o.moe) write_moe_keys(file, arch, a, o);
}

// Row (head, pair j, half) of the result is row (head, half, pair j) of the source:
// rotated pairs lie side by side.
void emit_permuted(FileDType from, const char* data, const GgufTensor& tensor, FileDType to,
                   const Emit& emit) {
  const int64_t columns = tensor.shape[1], head_dim = tensor.shape[0] / tensor.permute_heads;
  for (int64_t head = 0; head < tensor.permute_heads; ++head)
    for (int64_t row = 0; row < head_dim; ++row) {
      const int64_t source = head * head_dim + (row % 2) * (head_dim / 2) + row / 2;
      emit_converted(from, data + bytes_of(from, source * columns), columns, to, emit);
    }
}

void emit_zeros(int64_t bytes, const Emit& emit) {
  const std::string zeros(static_cast<size_t>(std::min<int64_t>(bytes, 1 << 16)), '\0');
  for (int64_t left = bytes; left > 0; left -= static_cast<int64_t>(zeros.size()))
    emit(zeros.data(), std::min(zeros.size(), static_cast<size_t>(left)));
}

TensorSource source_of(CheckpointReader& checkpoint, const GgufTensor& tensor, DType dtype) {
  const FileDType to = tensor.keep_f32 ? FileDType::kF32 : file_dtype(dtype);
  return {.name = tensor.name,
          .dtype = to,
          .shape = tensor.shape,
          .produce = [&checkpoint, tensor, to](const Emit& emit) {
            if (tensor.sources.empty()) return emit_zeros(bytes_of(to, element_count(tensor.shape)), emit);
            for (const std::string& name : tensor.sources) {
              const TensorEntry& entry = checkpoint.entry(name);
              const char* data = checkpoint.bytes(name).data();
              if (tensor.permute_heads > 0)
                emit_permuted(entry.dtype, data, tensor, to, emit);
              else
                emit_converted(entry.dtype, data, entry.numel(), to, emit);
            }
          }};
}

}  // namespace

std::string export_gguf(const GgufExport& job) {
  check_output(job.out);
  CheckpointReader checkpoint(job.checkpoint);
  const StoredModel model = read_model(checkpoint);
  const GgufArch arch = choose_gguf_arch(job.arch, model.options);
  GgufFile file;
  write_keys(file, arch, model, job.dtype);
  const std::string warning =
      write_tokenizer(file, model.tokenizer, (job.checkpoint / kTokenizerText).string(), model.source,
                      model.options.vocab_size);
  if (!warning.empty() && job.warn) job.warn(warning);
  for (const GgufTensor& tensor : gguf_tensors(arch, model.options))
    file.add(source_of(checkpoint, tensor, job.dtype));
  AtomicDirectory out(job.out);
  file.write(out.path() / "model.gguf");
  out.commit();
  return name_of(arch);
}

}  // namespace switchyard
