#include "trainer/checkpoint/runs.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

namespace switchyard {
namespace {

constexpr char kLatest[] = "LATEST";
constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kAside = ".replaced";

std::string step_name(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step_%08lld", static_cast<long long>(step));
  return name;
}

// The step that `name` is the directory of: step_name() of it and nothing else.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || stop != end || step < 0 || step_name(step) != name) return std::nullopt;
  return step;
}

// None where there is no such directory.
std::vector<std::string> entries_of(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory)
    fail_reading(directory, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

// Renamed first, so that an interrupted removal leaves no half of a checkpoint under its name.
void remove_checkpoint(const fs::path& path) {
  const fs::path hidden = path.parent_path() / concat(".", path.filename().string(), ".old.tmp");
  std::error_code ignored;
  fs::remove_all(hidden, ignored);
  fs::rename(path, hidden, ignored);
  fs::remove_all(hidden, ignored);
}

void warn_of_latest(const fs::path& checkpoints, const std::string& newest, const Warn& warn) {
  const fs::path path = checkpoints / kLatest;
  std::error_code ignored;
  std::string said = fs::exists(path, ignored) ? "nothing (it is no file)" : "nothing (it is missing)";
  try {
    if (fs::is_regular_file(path, ignored)) {
      const std::string text = MappedFile(path).bytes().size() < 256 ? read_file(path) : "too much";
      said = shown(text.substr(0, text.find('\n')));
      if (said == shown(newest)) return;
    }
  } catch (const Error&) {
    said = "nothing (it cannot be read)";
  }
  warn(concat(path.string(), ": names ", said, ", the newest checkpoint is ", newest));
}

// With a sound manifest, and every file there at its size.
bool is_whole(const fs::path& checkpoint) {
  try {
    const CheckpointReader reader(checkpoint);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool is_checkpoint(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path / kManifestName, ignored);
}

}  // namespace

fs::path step_directory(const fs::path& checkpoints, int64_t step) { return checkpoints / step_name(step); }

void publish(const fs::path& checkpoints, int64_t step, int64_t keep_last, const Warn& warn,
             const std::vector<int64_t>& damaged) {
  const fs::path latest = checkpoints / kLatest;
  std::error_code ignored;
  if (fs::is_directory(latest, ignored)) {  // a checkpoint that is complete is worth more than its name there
    warn(concat(latest.string(), ": is a directory; the newest checkpoint, ", step_name(step),
                ", is found without it"));
  } else {
    write_file(latest, step_name(step) + "\n");
  }
  sync_directory(checkpoints);
  if (keep_last <= 0) return;
  int64_t kept = 0;
  for (const int64_t other : list_steps(checkpoints)) {
    const fs::path path = step_directory(checkpoints, other);
    const bool passed_over = std::find(damaged.begin(), damaged.end(), other) != damaged.end();
    if (other <= step && !passed_over && is_whole(path) && ++kept > keep_last) remove_checkpoint(path);
  }
}

std::vector<int64_t> list_steps(const fs::path& checkpoints) {
  std::vector<int64_t> steps;
  std::error_code ignored;
  for (const std::string& name : entries_of(checkpoints))
    if (const auto step = step_of(name); step && fs::is_directory(checkpoints / name, ignored))
      steps.push_back(*step);
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

std::optional<fs::path> find_newest(const fs::path& checkpoints, const Warn& warn) {
  const std::vector<int64_t> steps = list_steps(checkpoints);
  for (const int64_t step : steps) {
    const fs::path path = step_directory(checkpoints, step);
    try {
      const CheckpointReader reader(path, Verify::kAll);
      if (reader.step() != step)
        fail(Fault::kData, path.string(), ": its manifest is that of step ", reader.step());
      warn_of_latest(checkpoints, step_name(step), warn);
      return path;
    } catch (const Error& error) {
      if (error.fault() != Fault::kData) throw;
      warn(concat("checkpoint ", path.string(), " is not used: ", error.what()));
    }
  }
  if (!steps.empty()) {
    fail(Fault::kData, checkpoints.string(), ": none of its ", steps.size(), " checkpoints is intact");
  }
  // It is written with the first checkpoint: there were some.
  std::error_code ignored;
  if (fs::exists(checkpoints / kLatest, ignored) && !fs::is_directory(checkpoints / kLatest, ignored)) {
    fail(Fault::kData, (checkpoints / kLatest).string(),
         ": its checkpoint is gone, and no other is there; remove the file to begin anew");
  }
  return std::nullopt;
}

fs::path resolve_checkpoint(const fs::path& path, const Warn& warn) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored))
    fail(Fault::kData, path.string(), ": no such checkpoint or run directory");
  if (is_checkpoint(path)) return path;
  for (const fs::path& checkpoints : {path / "checkpoints", path})
    if (const auto newest = find_newest(checkpoints, warn)) return *newest;
  fail(Fault::kData, path.string(), ": holds no checkpoint (", kManifestName, " is missing)");
}

// Oldest first: cut short at any place, the newest is still that of the run before, or there is none.
void set_aside(const fs::path& checkpoints) {
  std::error_code ignored;
  if (!fs::is_directory(checkpoints / kLatest, ignored)) fs::remove(checkpoints / kLatest);
  const std::vector<int64_t> steps = list_steps(checkpoints);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path aside = checkpoints / concat(".", step_name(*step), kAside);
    fs::remove_all(aside);
    fs::rename(step_directory(checkpoints, *step), aside);
  }
}

void remove_set_aside(const fs::path& checkpoints) {
  std::error_code ignored;
  for (const std::string& name : entries_of(checkpoints))
    if (name.starts_with(".step_") && name.ends_with(kAside)) fs::remove_all(checkpoints / name, ignored);
}

void remove_leftovers(const fs::path& checkpoints) {
  std::error_code ignored;
  for (const std::string& name : entries_of(checkpoints))
    if (name.ends_with(".tmp") && (name.starts_with(".step_") || name == ".LATEST.tmp"))
      fs::remove_all(checkpoints / name, ignored);
}

}  // namespace switchyard
