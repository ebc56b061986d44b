#include "core/metrics/meter.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/error.h"

namespace trireme {

namespace {
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
}

WindowedMean::WindowedMean(std::size_t window) : window_(window) {
  TRIREME_CHECK(window > 0, "a windowed mean needs a window of at least 1, got {}", window);
}

void WindowedMean::add(double value) {
  if (values_.size() < window_) {
    values_.push_back(value);
  } else {
    values_[oldest_] = value;
    oldest_ = (oldest_ + 1) % window_;
  }
}

double WindowedMean::mean() const {
  // Summed afresh: a running sum would keep rounding errors, and NaN, for ever.
  if (values_.empty()) return kNaN;
  return std::accumulate(values_.begin(), values_.end(), 0.0) / static_cast<double>(values_.size());
}

Throughput::Throughput(double half_life_seconds) : half_life_(half_life_seconds) {
  TRIREME_CHECK(half_life_seconds > 0, "a throughput needs a half-life above 0 s, got {}", half_life_seconds);
}

void Throughput::add(double units, double seconds) {
  const double keep = std::exp2(-seconds / half_life_);
  units_ = keep * units_ + units;
  seconds_ = keep * seconds_ + seconds;
}

double Throughput::per_second() const { return seconds_ > 0 ? units_ / seconds_ : kNaN; }

double hidden_fraction(double comm_ms, double exposed_ms) {
  return comm_ms > 0 ? std::clamp(1 - exposed_ms / comm_ms, 0.0, 1.0) : kNaN;
}

}  // namespace trireme
