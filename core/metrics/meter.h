// Small accumulators behind the numbers that a run reports.
#pragma once

#include <cstddef>
#include <vector>

namespace trireme {

/// Mean of the newest `window` values; NaN while there are none. A NaN that was added shows for as long as it
/// is in the window. One thread at a time.
class WindowedMean {
 public:
  explicit WindowedMean(std::size_t window);
  void add(double value);
  double mean() const;
  std::size_t count() const { return values_.size(); }

 private:
  std::size_t window_;
  std::size_t oldest_ = 0;
  std::vector<double> values_;
};

/// Smoothed rate: what was done over the time it took, where work loses half of its weight every `half_life`
/// seconds of work after it. Slow first steps are soon forgotten, and the length of steps does not
/// bias it. One thread at a time.
class Throughput {
 public:
  explicit Throughput(double half_life_seconds = 10);
  void add(double units, double seconds);
  /// Units per second; NaN before the first time that took any.
  double per_second() const;

 private:
  double half_life_;
  double units_ = 0;
  double seconds_ = 0;
};

/// The part of the communication time that computation hid, 0 to 1. `exposed_ms` is the time that the step
/// stood still for it. NaN when there was no communication.
double hidden_fraction(double comm_ms, double exposed_ms);

}  // namespace trireme
