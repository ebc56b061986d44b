#include "distributed/train/reporter.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "core/metrics/curves.h"
#include "distributed/rendezvous/world.h"
#include "kernels/error.h"

namespace trireme {

namespace {

std::filesystem::path chosen(const std::string& flag, const std::string& out, const char* name) {
  if (!flag.empty()) return flag;
  return out.empty() ? std::filesystem::path() : std::filesystem::path(out) / name;
}

/// Runs `work`; its error gets the flag in front that named the path.
template <class Work>
void for_flag(const char* flag, const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", flag, error.what());
  }
}

}  // namespace

OutputPaths::OutputPaths(const JobOptions& o)
    : checkpoints(chosen(o.checkpoint_dir(), o.out(), "checkpoints")) {
  // A replay must not write into the output folder of the run that it replays.
  const std::string out = o.replay_from() > 0 ? "" : o.out();
  folder = out;
  metrics = chosen(o.metrics(), out, "metrics.jsonl");
  tensorboard = chosen(o.tensorboard(), out, "tensorboard");
  if (!out.empty()) curves = std::filesystem::path(out) / "curves.png";
}

Reporter::Reporter(const JobOptions& options)
    : quiet_(options.quiet()),
      is_replay_(options.replay_from() > 0),
      paths_(options),
      metrics_flag_(options.metrics().empty() ? "--out" : "--metrics"),
      checkpoints_flag_(options.checkpoint_dir().empty() ? "--out" : "--checkpoint-dir"),
      tensorboard_flag_(options.tensorboard().empty() ? "--out" : "--tensorboard"),
      title_(options.model() + " on " + options.data()),
      trail_path_(options.digest_trail()),
      trace_folder_(options.trace()) {
  if (!quiet_) progress_.emplace(STDERR_FILENO);
}

void Reporter::open(std::optional<std::int64_t> resume_step, const std::string& unit) {
  unit_ = unit;
  check_apart({{metrics_flag_, paths_.metrics},
               {"--digest-trail", trail_path_},
               {"--out", paths_.curves},
               {tensorboard_flag_, paths_.tensorboard, true},
               {checkpoints_flag_, paths_.checkpoints, true},
               {"--trace", trace_folder_, true}});
  std::error_code ignored;
  const Output files[] = {{metrics_flag_, paths_.metrics}, {"--digest-trail", trail_path_}};
  for (const Output& file : files) {
    // A path in a folder that does not exist is most often a typing error, so the folder is not made.
    const std::filesystem::path folder = file.path.parent_path();
    if (file.flag != std::string_view("--out") && !folder.empty() &&
        !std::filesystem::exists(folder, ignored))
      fail(ExitCode::kUsage, "{}: there is no folder {} for {}", file.flag, folder.string(),
           file.path.string());
  }
  for (const Output& file : files)
    if (!resume_step) set_aside_after_restart(file.path);
  // Existing files may be refused, so they are opened before new ones are made.
  const bool is_new[] = {!std::filesystem::exists(paths_.metrics, ignored),
                         !std::filesystem::exists(trail_path_, ignored)};
  try {
    const auto open_files = [&](bool that_are_new) {
      if (is_new[0] == that_are_new) open_lines(metrics_flag_, paths_.metrics, resume_step, metrics_);
      if (is_new[1] == that_are_new) open_lines("--digest-trail", trail_path_, resume_step, trail_);
    };
    open_files(false);
    claim({"--out", paths_.curves}, resume_step.has_value());
    for (const std::filesystem::path& trace : traces_in(trace_folder_))
      claim({"--trace", trace}, resume_step.has_value());
    open_files(true);
    for_flag(tensorboard_flag_, [&] {
      if (!paths_.tensorboard.empty()) tensorboard_.emplace(paths_.tensorboard, resume_step);
    });
  } catch (...) {
    if (metrics_ && is_new[0]) std::filesystem::remove(paths_.metrics, ignored);
    if (trail_ && is_new[1]) std::filesystem::remove(trail_path_, ignored);
    throw;
  }
}

void Reporter::set_aside_after_restart(const std::filesystem::path& file) {
  if (!is_replay_ && is_restarted(process_environment()))
    set_aside(file, [this](const std::string& line) { note(line); });
}

void Reporter::claim(const Output& output, bool resumes) {
  if (resumes || output.path.empty()) return;
  set_aside_after_restart(output.path);
  check_unwritten(output);
}

void Reporter::open_lines(const char* flag, const std::filesystem::path& path,
                          std::optional<std::int64_t> resume_step, std::optional<JsonlWriter>& lines) {
  if (path.empty()) return;
  for_flag(flag, [&] {
    if (resume_step)
      lines.emplace(path, *resume_step);
    else
      lines.emplace(path);
  });
}

void Reporter::step(const StepReport& r) {
  throughput_.add(static_cast<double>(r.samples), r.step_ms / 1000);
  samples_ += static_cast<double>(r.samples);
  seconds_ += r.step_ms / 1000;
  Record record;
  record.set("step", r.step).set("epoch", r.epoch + 1).set("loss", r.loss);
  if (!std::isnan(r.accuracy)) record.set("accuracy", r.accuracy);
  record.set("lr", r.lr)
      .set("samples_per_s", r.step_ms > 0 ? static_cast<double>(r.samples) / r.step_ms * 1000 : 0);
  record.set("step_ms", r.step_ms).set("forward_ms", r.forward_ms).set("backward_ms", r.backward_ms);
  record.set("comm_ms", r.comm_ms)
      .set("comm_exposed_ms", r.comm_exposed_ms)
      .set("optimizer_ms", r.optimizer_ms);
  record.set("data_wait_ms", r.data_wait_ms).set("world_size", r.world_size).set("shards", r.shards);
  for (const auto& [key, value] : r.extra.fields())
    std::visit([&, name = std::string_view(key)](const auto& v) { record.set(name, v); }, value);
  if (metrics_) metrics_->write(record);
  if (tensorboard_) tensorboard_->add(record);
  show(r);
}

void Reporter::digests(std::int64_t step, const std::string& all, const TensorDigests& tensors) {
  Record record;
  record.set("step", step).set("digest", all);
  for (const auto& [name, digest] : tensors) record.set(name, digest);
  trail_->write(record);
}

void Reporter::show(const StepReport& r) {
  loss_.add(r.loss);
  if (!std::isnan(r.accuracy)) accuracy_.add(r.accuracy);
  const double hidden = hidden_fraction(r.comm_ms, r.comm_exposed_ms);
  if (!std::isnan(hidden)) hidden_.add(hidden);
  if (!progress_) return;
  Progress p{
      .epoch = r.epoch + 1, .epochs = r.epochs, .step = r.step, .steps = r.steps, .loss = loss_.mean()};
  p.accuracy = accuracy_.mean();
  p.samples_per_second = throughput_.per_second();
  p.sample = unit_;
  if (r.world_size > 1) p.hidden = hidden_.mean();
  p.lr = r.lr;
  p.seconds_left =
      static_cast<double>(r.steps - r.step) * static_cast<double>(r.samples) / throughput_.per_second();
  if (const auto evaluated = r.extra.number("eval_accuracy")) {
    p.accuracy = *evaluated;
    progress_->finish_line(p);
    progress_->message(fmt::format("epoch {}: test accuracy {:.2f} %, test loss {:.4f}", r.epoch + 1,
                                   100 * *evaluated, r.extra.number("eval_loss").value_or(NAN)));
  } else if (r.step == r.steps || r.ends_epoch) {
    progress_->finish_line(p);
  } else {
    progress_->update(p);
  }
}

void Reporter::say(const std::string& line) {
  // Standard output carries results only; the progress line, on standard error, steps aside.
  if (progress_) progress_->step_aside();
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void Reporter::note(const std::string& line) {
  if (progress_) progress_->message(line);
}

void Reporter::warn(const std::string& line) {
  if (progress_)
    progress_->message(line);
  else
    std::fprintf(stderr, "%s\n", line.c_str());
}

std::filesystem::path Reporter::draw_curves() {
  if (paths_.curves.empty() || paths_.metrics.empty()) return {};
  try {
    trireme::draw_curves(paths_.metrics, paths_.curves, title_);
    return paths_.curves;
  } catch (const Error& error) {
    warn(std::string("no picture of the curves: ") + error.what());
    return {};
  }
}

}  // namespace trireme
