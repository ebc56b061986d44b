// The loader: turns requests for samples into batches, ahead of time and in order.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "core/data/dataset.h"
#include "core/data/sampler.h"
#include "core/tensor/tensor.h"

namespace trireme {

/// Positions [first, first + count) of `epoch`; count may be 0.
struct Request {
  std::int64_t epoch = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
};

struct Batch {
  std::vector<Tensor> fields;  ///< the data set's fields, with N samples in dimension 0
  Tensor x, y;                 ///< the first two fields
  std::int64_t epoch = 0;
  std::int64_t first_position = 0;    ///< the request's first position
  std::vector<std::int64_t> indices;  ///< N indices in the data set, in the order of positions

  /// Sets x and y.
  void name_first_two() {
    x = fields[0];
    if (fields.size() > 1) y = fields[1];
  }
};

struct LoaderOptions {
  /// Threads that prepare batches; 0 prepares each one in the caller.
  int workers = 0;
  /// The largest number of batches in preparation or waiting, at least 1. It bounds the memory, also that of
  /// the device.
  int prefetch = 4;
  /// The seed of random changes to samples.
  std::uint64_t seed = 0;
  /// The longest wait for one batch.
  std::chrono::milliseconds patience = std::chrono::seconds(300);
  /// The device on which next() returns batches.
  Device device = kCpu;
};

/// Prepares batches in the order of requests. The bits of a batch depend on the data set, the sampler,
/// the seed and the request, never on the number of workers or on timing.
///
/// Thread-safety: one thread calls next() and wait_time(). The destructor may run at any time between
/// calls; it returns as soon as each worker has finished the sample that it is reading. What the request
/// function refers to must live until then.
class Loader {
 public:
  /// Returns the next request, or nullopt at the end, after which it is not called again. Calls are made one
  /// at a time, under the loader's lock and, if there are workers, from their threads. It must not call the
  /// loader and should be quick.
  using NextRequest = std::function<std::optional<Request>()>;

  Loader(std::shared_ptr<const Dataset> dataset, Sampler sampler, LoaderOptions options,
         NextRequest next_request);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Returns the batch of the next request, or nullopt after the last. Throws an error of the data set or of
  /// the request function in place of the batch that failed, and again at every later call. Throws
  /// Error(kData) if a batch takes longer than the patience.
  std::optional<Batch> next();

  /// Returns the total time spent in next(), which is the time that training waited for data.
  std::chrono::nanoseconds wait_time() const { return wait_time_; }

 private:
  /// A place in the ring: request number t is prepared in slot t % prefetch.
  struct Slot {
    bool ready = false;
    Batch batch;
    std::vector<std::unique_ptr<Upload>> uploads;  ///< pending uploads of the fields
    std::exception_ptr error;
  };

  std::optional<Slot> take();
  void wait_until_ready(std::unique_lock<std::mutex>& lock);
  void prepare_in_caller();
  void work(const std::stop_token& stop);
  std::optional<Request> ask();
  void prepare(const Request& request, const std::stop_token& stop, Slot& slot) const;
  void begin_uploads(Slot& slot) const;
  Batch make_batch(const Request& request, const std::stop_token& stop) const;
  bool all_taken() const { return ended_ && taken_ == issued_; }
  Slot& slot_of(std::int64_t number) { return slots_[static_cast<std::size_t>(number) % slots_.size()]; }

  const std::shared_ptr<const Dataset> dataset_;
  const Sampler sampler_;
  const LoaderOptions options_;
  const NextRequest next_request_;
  const std::vector<SampleField> fields_;
  std::chrono::nanoseconds wait_time_{0};

  std::mutex mutex_;
  std::condition_variable_any room_;  ///< a slot is free, or the requests ended
  std::condition_variable ready_;     ///< a slot is ready, or the requests ended
  // Guarded by mutex_, except that a slot being prepared belongs to its worker.
  std::vector<Slot> slots_;
  std::int64_t issued_ = 0;  ///< requests asked for
  std::int64_t taken_ = 0;   ///< batches given to the caller
  bool ended_ = false;

  std::vector<std::jthread> workers_;  ///< last, so that they are gone before what they use
};

}  // namespace trireme
