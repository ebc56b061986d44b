#include "core/data/loader.h"

#include <utility>

#include "kernels/error.h"

namespace trireme {
namespace {

/// Thrown inside a worker to leave a batch that nobody will ask for.
struct Stopped {};

}  // namespace

Loader::Loader(std::shared_ptr<const Dataset> dataset, Sampler sampler, LoaderOptions options,
               NextRequest next_request)
    : dataset_(std::move(dataset)),
      sampler_(sampler),
      options_(options),
      next_request_(std::move(next_request)),
      fields_(dataset_ ? dataset_->fields() : std::vector<SampleField>()) {
  TRIREME_CHECK(dataset_ != nullptr && next_request_ != nullptr,
                "loader: needs a data set and a request function");
  TRIREME_CHECK(!fields_.empty(), "loader: the data set's samples have no fields");
  TRIREME_CHECK(sampler_.size() == dataset_->size(),
                "loader: the sampler is for {} samples, the data set has {}", sampler_.size(),
                dataset_->size());
  TRIREME_CHECK(options_.workers >= 0 && options_.prefetch >= 1,
                "loader: workers {} must be at least 0 and prefetch {} at least 1", options_.workers,
                options_.prefetch);
  slots_.resize(static_cast<std::size_t>(options_.prefetch));
  for (int i = 0; i < options_.workers; ++i)
    workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
}

Loader::~Loader() {
  // All at once: the threads' own destructors would stop them one after another.
  for (std::jthread& worker : workers_) worker.request_stop();
}

std::optional<Batch> Loader::next() {
  struct Stopwatch {
    Loader& loader;
    const std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
    ~Stopwatch() { loader.wait_time_ += std::chrono::steady_clock::now() - start; }
  } stopwatch{*this};
  std::optional<Slot> slot = take();
  if (!slot) return std::nullopt;
  Batch& batch = slot->batch;
  if (!options_.device.is_cpu()) {
    for (std::size_t f = 0; f < batch.fields.size(); ++f)
      batch.fields[f] = to_device(batch.fields[f], options_.device,
                                  f < slot->uploads.size() ? slot->uploads[f].get() : nullptr);
    batch.name_first_two();
  }
  return std::move(batch);
}

std::optional<Loader::Slot> Loader::take() {
  std::unique_lock lock(mutex_);
  if (workers_.empty())
    prepare_in_caller();
  else
    wait_until_ready(lock);
  if (all_taken()) return std::nullopt;
  Slot& slot = slot_of(taken_);
  if (slot.error) std::rethrow_exception(slot.error);  // and stay there
  Slot taken = std::exchange(slot, Slot{});
  ++taken_;
  room_.notify_one();
  return taken;
}

void Loader::wait_until_ready(std::unique_lock<std::mutex>& lock) {
  const auto done = [this] { return all_taken() || (taken_ < issued_ && slot_of(taken_).ready); };
  if (!ready_.wait_for(lock, options_.patience, done))
    fail(ExitCode::kData,
         "loader: batch {} was not ready after {} ms with {} workers; the data's storage is stuck or "
         "slow, or --patience too short",
         taken_, options_.patience.count(), options_.workers);
}

void Loader::prepare_in_caller() {
  if (ended_) return;
  if (const auto request = ask()) {
    Slot& slot = slot_of(issued_ - 1);
    prepare(*request, std::stop_token{}, slot);
    if (slot.error) ended_ = true;
  }
}

void Loader::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  const auto may_ask = [this] {
    return ended_ || issued_ - taken_ < static_cast<std::int64_t>(slots_.size());
  };
  while (room_.wait(lock, stop, may_ask) && !ended_ && !stop.stop_requested()) {
    const std::optional<Request> request = ask();
    if (!request) break;
    Slot& slot = slot_of(issued_ - 1);
    lock.unlock();
    try {
      prepare(*request, stop, slot);
      begin_uploads(slot);
    } catch (const Stopped&) {
      return;
    }
    lock.lock();
    slot.ready = true;
    ready_.notify_one();
  }
  room_.notify_all();
  ready_.notify_one();
}

/// Asks for the next request; an error takes the place of its batch and ends the requests.
std::optional<Request> Loader::ask() {
  // Two returns rather than one result that the call assigns to: GCC 12 at -O1 and above loses the initial
  // nullopt of such a result when the call throws.
  try {
    std::optional<Request> request = next_request_();
    if (request)
      ++issued_;
    else
      ended_ = true;
    return request;
  } catch (...) {
    Slot& slot = slot_of(issued_++);
    slot.error = std::current_exception();
    slot.ready = true;
    ended_ = true;
    return std::nullopt;
  }
}

void Loader::prepare(const Request& request, const std::stop_token& stop, Slot& slot) const {
  try {
    slot.batch = make_batch(request, stop);
  } catch (const Stopped&) {
    throw;
  } catch (...) {
    slot.error = std::current_exception();
  }
}

/// So that neither the caller nor the device waits for the copies.
void Loader::begin_uploads(Slot& slot) const {
  if (options_.device.is_cpu() || slot.error || slot.batch.indices.empty()) return;
  try {
    for (const Tensor& field : slot.batch.fields)
      slot.uploads.push_back(std::make_unique<Upload>(
          options_.device, field.raw(), static_cast<std::size_t>(field.numel()) * size_of(field.dtype())));
  } catch (...) {
    slot.error = std::current_exception();
  }
}

Batch Loader::make_batch(const Request& request, const std::stop_token& stop) const {
  TRIREME_CHECK(request.count >= 0, "loader: count {} must not be negative", request.count);
  Batch batch;
  batch.epoch = request.epoch;
  batch.first_position = request.first;
  batch.indices.reserve(static_cast<std::size_t>(request.count));
  std::vector<std::byte*> to;
  std::vector<std::size_t> bytes;
  for (const SampleField& field : fields_) {
    Shape shape = field.shape;
    shape.insert(0, request.count);
    batch.fields.push_back(field.channels_last ? Tensor::empty_channels_last(shape, field.dtype)
                                               : Tensor::empty(shape, field.dtype));
    to.push_back(static_cast<std::byte*>(batch.fields.back().raw()));
    bytes.push_back(static_cast<std::size_t>(field.shape.numel()) * size_of(field.dtype));
  }
  for (std::int64_t i = 0; i < request.count; ++i) {
    if (stop.stop_requested()) throw Stopped{};
    batch.indices.push_back(sampler_.index(request.epoch, request.first + i));
    dataset_->read({batch.indices.back(), request.epoch, options_.seed}, to);
    for (std::size_t f = 0; f < to.size(); ++f) to[f] += bytes[f];
  }
  batch.name_first_two();
  return batch;
}

}  // namespace trireme
