// Who chose what: the data of recommender systems, and the two data sets that are made of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/data/dataset.h"

namespace trireme {

/// Users and items are numbered from 0.
struct Interactions {
  std::int64_t items = 0;
  std::vector<std::vector<std::int64_t>> items_of;  ///< of each user, oldest first, none twice; at least 2
  std::int64_t users() const { return static_cast<std::int64_t>(items_of.size()); }
};

/// Opens what `--data` names:
///
///     movielens:DIR                 the first of u.data, ratings.dat and ratings.csv in DIR
///     synthetic[:USERS,ITEMS]       made up from hidden tastes, 1000 users and 500 items
///
/// Fails with kUsage if `spec` cannot be understood, with kData if the data cannot be read.
std::shared_ptr<const Interactions> open_interactions(const std::string& spec);

/// All choices but each user's last, each followed by kNegatives items that the user did not choose, drawn
/// anew in each epoch from (seed, epoch, index). Fields: user () int64, item () int64, chosen () float32.
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

/// Each user's last choice, then kOthers items that the user never chose, the same each time.
/// Fields: user () int64, items (1 + kOthers) int64.
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
