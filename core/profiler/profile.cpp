#include "core/profiler/profile.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "core/profiler/timed_kernels.h"
#include "core/tensor/observer.h"
#include "core/tensor/tensor.h"

namespace trireme::profiler {

namespace {

std::string shapes_of(std::span<const Tensor* const> tensors) {
  std::string text;
  for (const Tensor* t : tensors)
    if (t->defined()) text += (text.empty() ? "" : " ") + t->shape().to_string();
  return text;
}

double milliseconds(std::int64_t ns) { return static_cast<double>(ns) / 1e6; }
double megabytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1024 * 1024); }

}  // namespace

class Profile::Recorder final : public Observer, public KernelClock {
 public:
  explicit Recorder(ProfileOptions options)
      : options_(options),
        track_(options.trace && options.trace->enabled() ? options.trace->track("ops") : 0) {
    active().push_back({this, observer, kernel_clock});
    observer = this;
    kernel_clock = this;
  }

  void stop() {
    if (end_ns_ != 0) return;
    flush();
    end_ns_ = Trace::now_ns();
    // Profiles may end in any order: whoever began after this one takes over what this one replaced.
    std::vector<Active>& all = active();
    const auto self = std::ranges::find(all, this, &Active::recorder);
    if (self == all.end()) return;  // it began on another thread
    if (self + 1 == all.end()) {
      observer = self->observer_before;
      kernel_clock = self->clock_before;
    } else {
      (self + 1)->observer_before = self->observer_before;
      (self + 1)->clock_before = self->clock_before;
    }
    all.erase(self);
  }

  const KernelTable& kernels(Device device) override {
    return device.is_cpu() ? timed_kernels() : kernels_of(device);
  }

  void kernel_ran(const char* name, std::int64_t begin_ns, std::int64_t end_ns) override {
    flush();
    last_ = {name, begin_ns, end_ns, std::exchange(allocated_, 0), std::max(live_, std::exchange(high_, 0))};
    if (!backward_.empty()) file(*backward_.back().row, backward_.back().op, true);
  }

  void op_done(const char* op, const Tensor& out, std::span<const Tensor* const> inputs) override {
    const bool is_view = static_cast<bool>(out.impl()->base);
    if (!last_.name || is_view) return;
    ProfileRow& found = row(op, false, options_.shapes ? shapes_of(inputs) : "");
    ++found.calls;
    file(found, op, false);
  }

  void backward_begins(const char* op) override {
    flush();
    backward_.push_back({op, &row(op, true, "")});
    ++backward_.back().row->calls;
  }
  void backward_ends() override { backward_.pop_back(); }

  void allocated(const void* memory, std::size_t bytes) override {
    blocks_[memory] = static_cast<std::int64_t>(bytes);
    allocated_ += static_cast<std::int64_t>(bytes);
    live_ += static_cast<std::int64_t>(bytes);
    high_ = std::max(high_, live_);
    peak_ = std::max(peak_, live_);
  }
  void freed(const void* memory) override {
    const auto found = blocks_.find(memory);
    if (found == blocks_.end()) return;  // older than the profile, or another thread's
    live_ -= found->second;
    blocks_.erase(found);
  }

  std::vector<ProfileRow> rows() {
    flush();
    std::vector<ProfileRow> all;
    for (const auto& [key, found] : rows_) all.push_back(found);
    std::ranges::stable_sort(all, std::ranges::greater(), &ProfileRow::self_ns);
    return all;
  }
  std::int64_t wall_ns() const { return (end_ns_ ? end_ns_ : Trace::now_ns()) - begin_ns_; }
  std::int64_t kernel_ns() const { return kernel_ns_; }
  std::int64_t peak() const { return peak_; }

 private:
  struct Kernel {
    const char* name = nullptr;
    std::int64_t begin_ns = 0, end_ns = 0, allocated = 0, high = 0;
  };
  struct Frame {
    const char* op;
    ProfileRow* row;
  };

  /// The profiles of this thread, the one that looks on last.
  struct Active {
    Recorder* recorder;
    Observer* observer_before;
    KernelClock* clock_before;
  };
  static std::vector<Active>& active() {
    static thread_local std::vector<Active> all;
    return all;
  }

  ProfileRow& row(const char* op, bool backward, std::string shapes) {
    ProfileRow& found = rows_[{op, backward, shapes}];
    found.op = op;
    found.backward = backward;
    found.shapes = std::move(shapes);
    return found;
  }

  /// No op has claimed the last kernel: it stands for itself.
  void flush() {
    if (!last_.name) return;
    ProfileRow& found = row(last_.name, false, "");
    ++found.calls;
    file(found, last_.name, false);
  }

  void file(ProfileRow& found, const char* op, bool backward) {
    const Kernel kernel = std::exchange(last_, {});
    found.self_ns += kernel.end_ns - kernel.begin_ns;
    found.allocated_bytes += kernel.allocated;
    found.peak_bytes = std::max(found.peak_bytes, kernel.high);
    kernel_ns_ += kernel.end_ns - kernel.begin_ns;
    if (options_.trace && options_.trace->enabled())
      options_.trace->span(op, backward ? "backward" : "forward", kernel.begin_ns, kernel.end_ns, track_);
  }

  const ProfileOptions options_;
  const Trace::Track track_;
  const std::int64_t begin_ns_ = Trace::now_ns();
  std::int64_t end_ns_ = 0, kernel_ns_ = 0;
  std::int64_t live_ = 0, peak_ = 0, allocated_ = 0;  // allocated_ and high_: since the last kernel
  std::int64_t high_ = 0;
  Kernel last_;  // not filed yet
  std::vector<Frame> backward_;
  std::unordered_map<const void*, std::int64_t> blocks_;
  std::map<std::tuple<std::string, bool, std::string>, ProfileRow> rows_;
};

Profile::Profile(ProfileOptions options) : recorder_(std::make_unique<Recorder>(options)) {}
Profile::~Profile() { recorder_->stop(); }
void Profile::stop() { recorder_->stop(); }
std::vector<ProfileRow> Profile::rows() const { return recorder_->rows(); }
std::int64_t Profile::wall_ns() const { return recorder_->wall_ns(); }
std::int64_t Profile::outside_ns() const { return recorder_->wall_ns() - recorder_->kernel_ns(); }
std::int64_t Profile::peak_bytes() const { return recorder_->peak(); }

std::string Profile::table(std::size_t most) const {
  const std::vector<ProfileRow> all = rows();
  const double wall = static_cast<double>(std::max<std::int64_t>(1, wall_ns()));
  std::string text = fmt::format("{:<32} {:>9} {:>10} {:>7} {:>10} {:>12} {:>10}\n", "op", "calls", "self ms",
                                 "share", "each us", "allocated MB", "peak MB");
  const auto line = [&](const std::string& name, std::int64_t calls, std::int64_t ns) {
    text +=
        fmt::format("{:<32} {:>9} {:>10.3f} {:>5.1f} % {:>10.1f}", name, calls, milliseconds(ns),
                    100 * static_cast<double>(ns) / wall,
                    static_cast<double>(ns) / 1e3 / static_cast<double>(std::max<std::int64_t>(1, calls)));
  };
  ProfileRow rest;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const ProfileRow& r = all[i];
    if (i < most) {
      line(r.op + (r.backward ? " (backward)" : ""), r.calls, r.self_ns);
      text += fmt::format(" {:>12.1f} {:>10.1f}{}{}\n", megabytes(r.allocated_bytes), megabytes(r.peak_bytes),
                          r.shapes.empty() ? "" : "  ", r.shapes);
    } else {
      rest.calls += r.calls;
      rest.self_ns += r.self_ns;
    }
  }
  if (rest.calls > 0) {
    line(fmt::format("{} others", all.size() - most), rest.calls, rest.self_ns);
    text += "\n";
  }
  return text + fmt::format("outside kernels {:.3f} ms of {:.3f} ms; peak {:.1f} MB\n",
                            milliseconds(outside_ns()), milliseconds(wall_ns()), megabytes(peak_bytes()));
}

}  // namespace trireme::profiler
