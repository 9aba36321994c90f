#include "trainer/job/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace switchyard {

std::string duration_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

Progress::Progress(const std::filesystem::path& log, int64_t first_step, int64_t last_step)
    : log_(log, std::ios::app), first_(first_step), last_(last_step) {}

void Progress::say(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
  log_ << line << "\n" << std::flush;
}

std::string Progress::eta(int64_t step) {
  if (timed_ == 0) return "--";
  return duration_text(seconds_ / static_cast<double>(timed_) * static_cast<double>(last_ - step));
}

void Progress::step(const StepMetrics& m) {
  if (m.step > first_) {
    seconds_ += m.step_seconds;
    ++timed_;
  }
  double violation = 0, dropped = 0;
  int64_t dead = 0;
  for (const LayerLoad& l : m.layers) {
    violation = std::max(violation, l.max_violation());
    dropped = std::max(dropped, l.drop_rate());
    dead += l.dead_experts();
  }
  std::string line = fmt::format("step {}/{} | loss {:.4f} | lr {:.2e} | norm {:.3f} | {:.0f} tok/s", m.step,
                                 last_, m.loss, m.lr, m.grad_norm, m.tokens_per_second);
  if (!m.layers.empty()) {
    line += fmt::format(" | max vio {:.2f}", violation);
    if (dropped > 0) line += fmt::format(" | drop {:.1f}%", 100 * dropped);
    if (dead > 0) line += fmt::format(" | dead {}", dead);
    line += fmt::format(" | exch {:.1f}%", 100 * m.exchange_seconds / m.step_seconds);
  }
  line += fmt::format(" | {:.0f} MiB | eta {}", static_cast<double>(m.peak_memory_bytes) / (1 << 20),
                      eta(m.step));
  say(line);
}

}  // namespace switchyard
