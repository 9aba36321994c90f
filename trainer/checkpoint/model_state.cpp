#include "trainer/checkpoint/model_state.h"

#include <algorithm>
#include <charconv>

#include "parallel/data/shares.h"
#include "trainer/together.h"

namespace switchyard {

namespace {

using Kind = ParameterStore::Kind;

struct KindNames {
  const char* shard;   // "weights-00000-of-00002.safetensors"
  const char* prefix;  // of the tensors' names
};

KindNames names_of(Kind kind) {
  switch (kind) {
    case Kind::kValue: return {"weights", ""};
    case Kind::kM: return {"optimizer_m", "adam_m."};
    case Kind::kV: return {"optimizer_v", "adam_v."};
  }
  fail(Fault::kInternal, "no such kind of state");
}

// The last update may have made them: such a checkpoint must not become the newest.
void refuse_non_finite(const std::vector<float>& values, const std::string& name) {
  float sum = 0;  // of x - x: 0 for every number, NaN for inf and NaN
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < values.size(); ++i) sum += values[i] - values[i];
  if (sum != 0)
    fail(Fault::kNonFinite, "the checkpoint is not written: ", name, " is not finite after the last update");
}

// What is kept in bf16 loses nothing by it.
FileDType dtype_in_file(const Segment& s, Kind kind) {
  return kind != Kind::kValue && s.m.dtype() == DType::kBF16 ? FileDType::kBF16 : FileDType::kF32;
}

TensorSource source_of(const Tensor& run, const Parameter& parameter, const Piece& piece, Kind kind,
                       FileDType dtype) {
  return {names_of(kind).prefix + piece.name, dtype, piece.shape.vector(),
          [&run, &parameter, &piece, kind, dtype](const Emit& emit) {
            const std::vector<float> values = read_piece(run, parameter, piece);
            refuse_non_finite(values, names_of(kind).prefix + piece.name);
            emit_converted(FileDType::kF32, values.data(), std::ssize(values), dtype, emit);
          }};
}

// The pieces that this rank writes: those that hold a tensor take turns. `runs`: of every segment.
std::vector<TensorSource> own_pieces(const ParameterStore& store, const Mesh& mesh,
                                     const std::vector<Tensor>& runs, Kind kind) {
  std::vector<TensorSource> tensors;
  int64_t turn = 0, expert_turn = 0;
  const auto& segments = store.segments();
  for (const Parameter& p : store.parameters()) {
    const Axis& holders = holders_of(p.spec.placement, mesh);
    const FileDType dtype = dtype_in_file(segments[p.segment], kind);
    int64_t& next = p.spec.placement == Placement::kExpert ? expert_turn : turn;
    for (const Piece& piece : p.spec.pieces)
      if (next++ % holders.size() == holders.rank())
        tensors.push_back(source_of(runs[p.segment], p, piece, kind, dtype));
  }
  return tensors;
}

void add_buffers(std::vector<TensorSource>& tensors, const ParameterStore& store) {
  for (const ParameterStore::Buffer& b : store.buffers()) {
    tensors.push_back({b.name, FileDType::kF32, b.shape.vector(), [&b](const Emit& emit) {
                         const std::vector<float> values = b.var.value().to_vector<float>();
                         emit(values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
                       }});
  }
}

// Values of one logical tensor, after its name and shape were found as expected.
std::vector<float> read_tensor(CheckpointReader& reader, const std::string& name, const Shape& shape) {
  const TensorEntry& entry = reader.entry(name);
  if (entry.shape != shape.vector()) {
    fail(Fault::kData, reader.directory().string(), ": tensor ", name, " is ", shape_text(entry.shape),
         ", the model has ", to_string(shape));
  }
  std::vector<float> values(shape.numel());
  reader.read(name, values.data(), DType::kF32);
  return values;
}

// State that stands beside the weights, and only with the options that made it: a new run may do without.
bool is_optional_state(const std::string& name) {
  return name.ends_with(".mlp.gate.load_excess") || name.ends_with(".mlp.gate.noise_weight") ||
         name.ends_with(".mlp.gate.e_score_correction_bias");
}

void load(CheckpointReader& reader, ParameterStore& store, Kind kind,
          MissingState missing = MissingState::kRefuse) {
  for (const Parameter& p : store.parameters()) {
    for (const Piece& piece : p.spec.pieces) {
      const bool may_lack = missing == MissingState::kZero && is_optional_state(piece.name);
      if (may_lack && !reader.contains(piece.name)) continue;
      store.write(p, piece, kind, read_tensor(reader, names_of(kind).prefix + piece.name, piece.shape));
    }
  }
}

// Experts that live on other ranks are known too: PREFIX.mlp.experts.N.gate_proj.weight and so on, for every
// row N of the layer's router.
bool is_expert_of(const ParameterStore& store, const std::string& name) {
  constexpr std::string_view kExperts = ".mlp.experts.";
  const size_t at = name.find(kExperts);
  if (at == name.npos) return false;
  const char *begin = name.data() + at + kExperts.size(), *end = name.data() + name.size();
  int64_t number = -1;
  const auto [next, error] = std::from_chars(begin, end, number);
  const std::string_view rest(next, end);
  const bool named_so =
      error == std::errc() && std::to_string(number) == std::string(begin, next) &&
      (rest == ".gate_proj.weight" || rest == ".up_proj.weight" || rest == ".down_proj.weight");
  const std::string router = name.substr(0, at) + ".mlp.gate";
  return named_so &&
         std::any_of(store.parameters().begin(), store.parameters().end(),
                     [&](const Parameter& p) { return p.spec.name == router && number < p.spec.shape[0]; });
}

void refuse_unknown(const CheckpointReader& reader, const ParameterStore& store, MissingState missing) {
  std::set<std::string> known;
  for (const Parameter& p : store.parameters()) {
    for (const Piece& piece : p.spec.pieces) known.insert(piece.name);
  }
  for (const ParameterStore::Buffer& b : store.buffers()) known.insert(b.name);
  for (const std::string& name : reader.names()) {
    std::string bare = name;
    if (bare.starts_with("adam_m.") || bare.starts_with("adam_v.")) bare = bare.substr(7);
    if (missing == MissingState::kZero && is_optional_state(bare)) continue;
    if (!known.contains(bare) && !is_expert_of(store, bare)) {
      fail(Fault::kData, reader.directory().string(), ": tensor ", name, " is not in the model");
    }
  }
}

}  // namespace

ModelOptions read_model_options(CheckpointReader& reader) {
  return model_from_text(reader.text(kModelText), reader.path_of(kModelText));
}

void save_checkpoint(const fs::path& directory, int64_t step, const ParameterStore& store, const Mesh& mesh,
                     const std::map<std::string, std::string>& texts) {
  const Group& world = mesh.world.host;
  std::optional<CheckpointWriter> writer;
  // Rank 0 makes the directory before the others write into it.
  together(world, [&] {
    if (world->rank() == 0) writer.emplace(directory, step, world->rank(), world->size());
  });
  together(world, [&] {
    if (!writer) writer.emplace(directory, step, world->rank(), world->size());
  });
  std::vector<std::string> shards;
  for (const Kind kind : {Kind::kValue, Kind::kM, Kind::kV}) {
    const std::vector<Tensor> runs = gather_state(store, kind, mesh);
    std::string shard;
    together(world, [&] {
      std::vector<TensorSource> tensors = own_pieces(store, mesh, runs, kind);
      if (kind == Kind::kValue && world->rank() == 0) add_buffers(tensors, store);
      shard = writer->write_shard(names_of(kind).shard, std::move(tensors));
    });
    for (std::string& text : gather_texts(world, shard)) shards.push_back(std::move(text));
  }
  together(world, [&] {
    if (world->rank() == 0) writer->finish(shards, texts);
  });
}

void load_weights(CheckpointReader& reader, ParameterStore& store, MissingState missing) {
  refuse_unknown(reader, store, missing);
  load(reader, store, Kind::kValue, missing);
  for (const ParameterStore::Buffer& b : store.buffers()) {
    if (missing == MissingState::kZero && !reader.contains(b.name)) continue;
    if (!reader.contains(b.name))
      fail(Fault::kData, reader.directory().string(), ": tensor ", b.name, " is missing");
    const std::vector<float> values = read_tensor(reader, b.name, b.shape);
    upload(b.var.value().raw(), b.var.device(), values.data(), b.var.value().bytes());
  }
}

void load_moments(CheckpointReader& reader, ParameterStore& store) {
  load(reader, store, Kind::kM);
  load(reader, store, Kind::kV);
}

}  // namespace switchyard
