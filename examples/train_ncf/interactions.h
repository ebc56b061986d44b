// Data of recommender systems: which user chose which items. Has one dataset for training and one for
// testing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/data/dataset.h"

namespace trireme {

/// The choices of all users. Users and items are numbered from 0.
struct Interactions {
  std::int64_t items = 0;
  /// The items that each user chose, oldest first. A user has at least two items and none twice.
  std::vector<std::vector<std::int64_t>> items_of;
  std::int64_t users() const { return static_cast<std::int64_t>(items_of.size()); }
};

/// Opens what `--data` names:
///
///     movielens:DIR                 the first of u.data, ratings.dat and ratings.csv in DIR
///     synthetic[:USERS,ITEMS]       random choices from hidden tastes; 1000 users and 500 items by default
///
/// Throws Error(kUsage) if `spec` has another form, and Error(kData) if the data cannot be read.
std::shared_ptr<const Interactions> open_interactions(const std::string& spec);

/// The training data: all choices except each user's last. Each is followed by kNegatives items that the user
/// did not choose, drawn anew in each epoch from (seed, epoch, index). Fields: user () int64, item () int64,
/// chosen () float32.
class Choices final : public Dataset {
 public:
  static constexpr std::int64_t kNegatives = 4;
  explicit Choices(std::shared_ptr<const Interactions> data);
  std::int64_t size() const override {
    return static_cast<std::int64_t>(positives_.size()) * (1 + kNegatives);
  }
  std::vector<SampleField> fields() const override;
  void read(const SampleId& id, std::span<std::byte* const> to) const override;
  std::string_view unit() const override { return "pairs"; }

 private:
  struct Pair {
    std::int64_t user, item;
  };
  std::shared_ptr<const Interactions> data_;
  std::vector<Pair> positives_;
};

/// The test data: each user's last choice, followed by kOthers random items that the user never chose, which
/// are the same in every evaluation. Fields: user () int64, items (1 + kOthers) int64.
class LastChoices final : public Dataset {
 public:
  static constexpr std::int64_t kOthers = 99;
  explicit LastChoices(std::shared_ptr<const Interactions> data) : data_(std::move(data)) {}
  std::int64_t size() const override { return data_->users(); }
  std::vector<SampleField> fields() const override;
  void read(const SampleId& id, std::span<std::byte* const> to) const override;
  std::string_view unit() const override { return "users"; }

 private:
  std::shared_ptr<const Interactions> data_;
};

}  // namespace trireme
