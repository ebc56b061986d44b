#include "examples/train_ncf/interactions.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <sstream>

#include "core/base/text_file.h"
#include "core/base/whole_number.h"
#include "kernels/error.h"
#include "kernels/rng.h"

namespace trireme {

namespace {

struct Rating {
  std::int64_t user, item, time;
};

/// Returns the rating in a line "user item rating time" whose fields are separated by tabs, commas or colons.
/// Returns nothing for other lines.
std::optional<Rating> rating_in(std::string_view line) {
  std::vector<std::string_view> fields;
  constexpr std::string_view kBetween = "\t,:";
  for (std::size_t at = 0; (at = line.find_first_not_of(kBetween, at)) != line.npos;) {
    const std::size_t end = std::min(line.find_first_of(kBetween, at), line.size());
    fields.push_back(line.substr(at, end - at));
    at = end;
  }
  if (fields.size() < 4) return {};
  const std::string_view seconds = fields[3].substr(0, fields[3].find('.'));  // without the fraction
  const auto user = whole_number<std::int64_t>(fields[0]), item = whole_number<std::int64_t>(fields[1]);
  const auto time = whole_number<std::int64_t>(seconds);
  return user && item && time ? std::optional(Rating{*user, *item, *time}) : std::nullopt;
}

std::vector<Rating> read_ratings(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path))
    fail(ExitCode::kData, "{}: is not a regular file; get a copy of the file", path.string());
  std::istringstream file(read_text(path, ExitCode::kData));
  std::vector<Rating> ratings;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    while (line.ends_with('\r') || line.ends_with(' ')) line.pop_back();
    if (line.empty() || (number == 1 && line.starts_with("userId"))) continue;
    const std::optional<Rating> rating = rating_in(line);
    if (!rating)
      fail(ExitCode::kData, "{}:{}: '{}' is not user, item, rating and time; get a whole copy of the file",
           path.string(), number, line.substr(0, 60));
    ratings.push_back(*rating);
  }
  if (ratings.empty())
    fail(ExitCode::kData, "{}: no ratings can be read; get a whole copy of the file", path.string());
  return ratings;
}

/// Replaces each value of a member by its index among the sorted distinct values. Returns the number of
/// distinct values.
std::int64_t renumber(std::vector<Rating>& ratings, std::int64_t Rating::*member) {
  std::vector<std::int64_t> values;
  for (const Rating& r : ratings) values.push_back(r.*member);
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
  for (Rating& r : ratings) r.*member = std::ranges::lower_bound(values, r.*member) - values.begin();
  return static_cast<std::int64_t>(values.size());
}

Interactions open_movielens(const std::filesystem::path& folder) {
  for (const char* name : {"u.data", "ratings.dat", "ratings.csv"}) {
    if (!std::filesystem::exists(folder / name)) continue;
    std::vector<Rating> ratings = read_ratings(folder / name);
    Interactions data;
    data.items = renumber(ratings, &Rating::item);
    data.items_of.resize(static_cast<std::size_t>(renumber(ratings, &Rating::user)));
    std::ranges::stable_sort(ratings, {}, &Rating::time);
    for (const Rating& r : ratings) {
      auto& items = data.items_of[static_cast<std::size_t>(r.user)];
      if (std::ranges::find(items, r.item) == items.end()) items.push_back(r.item);
    }
    return data;
  }
  fail(ExitCode::kData,
       "{}: there is no u.data, ratings.dat or ratings.csv; name MovieLens' folder: --data movielens:DIR",
       folder.string());
}

/// Returns synthetic data. Users have random tastes and items random traits, which are not part of the data.
/// Each user chooses the 20 items with the best match of taste and traits, plus some noise, in random order.
Interactions make_up(std::int64_t users, std::int64_t items) {
  constexpr std::int64_t kTraits = 4, kChosen = 20;
  // Returns a number with an approximately normal distribution.
  const auto random = [](std::uint64_t what, std::int64_t a, std::int64_t b) {
    const auto bits =
        philox(random_key(0x6e6366, what, 0), static_cast<std::uint64_t>(a), static_cast<std::uint64_t>(b));
    double total = 0;
    for (const std::uint32_t part : bits) total += to_unit_float(part);
    return (total - 2) * std::sqrt(3.0);
  };
  Interactions data{items, {}};
  for (std::int64_t u = 0; u < users; ++u) {
    std::vector<std::pair<double, std::int64_t>> liked;
    for (std::int64_t i = 0; i < items; ++i) {
      double score = random(2, u, i);
      for (std::int64_t t = 0; t < kTraits; ++t) score += 1.5 * random(0, u, t) * random(1, i, t);
      liked.emplace_back(-score, i);
    }
    std::ranges::nth_element(liked, liked.begin() + kChosen);
    std::vector<std::int64_t>& chosen = data.items_of.emplace_back();
    for (std::int64_t i = 0; i < kChosen; ++i) chosen.push_back(liked[static_cast<std::size_t>(i)].second);
    std::ranges::sort(chosen, {}, [&](std::int64_t i) { return random(3, u, i); });
  }
  return data;
}

/// Returns a random item that the user never chose. Draws from the key's numbers from index `draw` on, and
/// advances `draw`.
std::int64_t other_item(const Interactions& data, std::int64_t user, RandomKey key, std::uint64_t& draw) {
  const auto& chosen = data.items_of[static_cast<std::size_t>(user)];
  for (;;) {
    const auto item = static_cast<std::int64_t>(
        to_bounded(philox(key, 0, draw++)[0], static_cast<std::uint32_t>(data.items)));
    if (std::ranges::find(chosen, item) == chosen.end()) return item;
  }
}

}  // namespace

std::shared_ptr<const Interactions> open_interactions(const std::string& spec) {
  Interactions data;
  long long users = 1000, items = 500;
  int end = 0;
  if (spec.starts_with("movielens:") && spec.size() > 10) {
    data = open_movielens(spec.substr(10));
  } else if (spec == "synthetic" ||
             (std::sscanf(spec.c_str(), "synthetic:%lld,%lld%n", &users, &items, &end) == 2 &&
              spec.size() == static_cast<std::size_t>(end) && users > 0 && users <= 1000000 && items > 0 &&
              items <= 1000000)) {
    if (items <= 1 + LastChoices::kOthers)
      fail(ExitCode::kUsage, "--data '{}': {} items are too few to find one among {} others; use at least {}",
           spec, items, LastChoices::kOthers, 2 + LastChoices::kOthers);
    data = make_up(users, items);
  } else {
    fail(ExitCode::kUsage, "--data: '{}' is not one of movielens:DIR, synthetic[:USERS,ITEMS]", spec);
  }
  std::erase_if(data.items_of,
                [](const auto& items_of) { return items_of.size() < 2; });  // too few to hold one out
  for (const auto& chosen : data.items_of)
    if (static_cast<std::int64_t>(chosen.size()) == data.items)
      fail(ExitCode::kData, "--data {}: a user chose all {} items, so there is nothing to tell apart", spec,
           data.items);
  if (data.items_of.empty()) fail(ExitCode::kData, "--data {}: no user chose two items or more", spec);
  return std::make_shared<const Interactions>(std::move(data));
}

Choices::Choices(std::shared_ptr<const Interactions> data) : data_(std::move(data)) {
  for (std::int64_t user = 0; user < data_->users(); ++user) {
    const auto& chosen = data_->items_of[static_cast<std::size_t>(user)];
    for (std::size_t i = 0; i + 1 < chosen.size(); ++i) positives_.push_back({user, chosen[i]});
  }
}

std::vector<SampleField> Choices::fields() const {
  return {{.dtype = DType::kInt64}, {.dtype = DType::kInt64}, {.dtype = DType::kFloat32}};
}

void Choices::read(const SampleId& id, std::span<std::byte* const> to) const {
  const Pair& positive = positives_[static_cast<std::size_t>(id.index / (1 + kNegatives))];
  const bool chosen = id.index % (1 + kNegatives) == 0;
  const RandomKey key =
      random_key(id.seed, static_cast<std::uint64_t>(id.epoch), static_cast<std::uint64_t>(id.index));
  std::uint64_t draw = 0;
  *reinterpret_cast<std::int64_t*>(to[0]) = positive.user;
  *reinterpret_cast<std::int64_t*>(to[1]) =
      chosen ? positive.item : other_item(*data_, positive.user, key, draw);
  *reinterpret_cast<float*>(to[2]) = chosen ? 1 : 0;
}

std::vector<SampleField> LastChoices::fields() const {
  return {{.dtype = DType::kInt64}, {.shape = {1 + kOthers}, .dtype = DType::kInt64}};
}

void LastChoices::read(const SampleId& id, std::span<std::byte* const> to) const {
  auto* items = reinterpret_cast<std::int64_t*>(to[1]);
  *reinterpret_cast<std::int64_t*>(to[0]) = id.index;
  items[0] = data_->items_of[static_cast<std::size_t>(id.index)].back();
  std::uint64_t draw = 0;
  for (std::int64_t i = 1; i <= kOthers; ++i)
    items[i] =
        other_item(*data_, id.index, random_key(0x6c617374, 0, static_cast<std::uint64_t>(id.index)), draw);
}

}  // namespace trireme
