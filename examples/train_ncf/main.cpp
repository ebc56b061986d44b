// Trains a recommender system on users' choices: X. He et al., "Neural collaborative filtering", 2017.
#include <trireme/trireme.h>

#include <charconv>
#include <cmath>
#include <optional>

#include "distributed/train/memory.h"
#include "examples/optimizer.h"
#include "examples/train_ncf/interactions.h"

namespace trireme {

namespace {

/// The NeuMF model: combines the product of one pair of embeddings with a perceptron over another pair.
struct NeuMf : nn::Module {
  NeuMf(std::int64_t users, std::int64_t items, std::int64_t factors)
      : user_gmf(users, factors),
        item_gmf(items, factors),
        user_mlp(users, 2 * factors),
        item_mlp(items, 2 * factors),
        mlp(nn::Linear(4 * factors, 2 * factors), nn::ReLU(), nn::Linear(2 * factors, factors), nn::ReLU()),
        predict(2 * factors, 1) {
    for (nn::Embedding* table : {&user_gmf, &item_gmf, &user_mlp, &item_mlp})
      nn::init::normal_(table->weight, 0, 0.01);
  }

  /// Computes user and item (N) -> logits (N), which are positive if the user is likely to choose the item.
  Tensor operator()(const Tensor& user, const Tensor& item) {
    return with_hooks({user, item},
                      [this](const std::vector<Tensor>& in) { return std::vector{logits(in[0], in[1])}; })[0];
  }
  Tensor logits(const Tensor& user, const Tensor& item) {
    const Tensor product = user_gmf(user) * item_gmf(item);
    const Tensor deep = mlp(cat({user_mlp(user), item_mlp(item)}, 1));
    return squeeze(predict(cat({product, deep}, 1)), 1);
  }
  void visit(nn::Visitor& v) override {
    v.module("user_gmf", user_gmf);
    v.module("item_gmf", item_gmf);
    v.module("user_mlp", user_mlp);
    v.module("item_mlp", item_mlp);
    v.module("mlp", mlp);
    v.module("predict", predict);
  }

  nn::Embedding user_gmf, item_gmf, user_mlp, item_mlp;
  nn::Sequential mlp;
  nn::Linear predict;
};

/// Returns the number of factors in "neumf[:FACTORS]". Throws Error(kUsage) for any other text.
std::int64_t factors_of(const std::string& model) {
  if (model == "neumf") return 8;
  std::int64_t factors = 0;
  const char* const end = model.data() + model.size();
  if (!model.starts_with("neumf:") || std::from_chars(model.data() + 6, end, factors).ptr != end ||
      factors < 1 || factors > 4096)
    fail(ExitCode::kUsage, "--model '{}' is not neumf[:FACTORS] with FACTORS from 1 to 4096", model);
  return factors;
}

struct Ranking {
  double hit_rate = 0, ndcg = 0;  ///< averages over users, for the first 10 of 100 ranked items
};

/// Ranks each user's last choice among items that the user never chose.
Ranking rank_last_choices(Job& job, NeuMf& model, const LastChoices& test) {
  const auto sums = sum_over(job, test, 50, 2, [&](const Batch& b, std::span<double> figures) {
    const Tensor users = expand(unsqueeze(b.x, 1), b.y.shape());
    const Tensor scores = reshape(model(flatten(users), flatten(b.y)), b.y.shape());
    const Tensor ahead = sum(ge(scores, narrow(scores, 1, 0, 1)), {1});  // counts the choice itself, too
    for (const std::int64_t place : ahead.to_vector<std::int64_t>()) {
      if (place > 10) continue;
      figures[0] += 1;
      figures[1] += 1 / std::log2(1 + place);
    }
  });
  const auto users = static_cast<double>(test.size());
  return {sums[0] / users, sums[1] / users};
}

void train(Job& job) {
  const JobOptions& o = job.options();
  std::shared_ptr<const Interactions> data;
  std::int64_t factors = 0;
  agree(job.comm(), "data", [&] {
    factors = factors_of(o.model());
    data = open_interactions(o.data());
    check_model_fits(o, static_cast<double>((data->users() + data->items) * 3 * factors));  // the embeddings
  });
  const Choices training(data);
  const LastChoices test(data);
  NeuMf model(data->users(), data->items, factors);
  DistributedDataParallel ddp(model, job);
  const auto optimizer = make_optimizer(o, ddp.parameters());

  std::optional<Ranking> last;
  for (auto& step : job.steps(training)) {
    for (auto& shard : step.shards())
      step.add(bce_with_logits(model(shard.x, shard.y), shard.fields[2])).backward();
    step.clip_gradients(ddp.parameters());
    optimizer->set_lr(step.lr());
    optimizer->step();
    if (step.is_evaluated()) {
      last = rank_last_choices(job, model, test);
      step.report("eval_hit_rate", last->hit_rate);
      step.report("eval_ndcg", last->ndcg);
    }
  }
  if (!last) last = rank_last_choices(job, model, test);  // the resumed job had no step left
  job.say(fmt::format("hit rate at 10 of 100: {:.2f} % of {} users, NDCG {:.4f}", 100 * last->hit_rate,
                      test.size(), last->ndcg));
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_model("neumf");
  defaults.set_data("synthetic");
  defaults.set_epochs(10);
  defaults.set_global_batch(1024);
  defaults.set_optimizer("adamw");
  defaults.set_lr(2e-3);
  return trireme::run(
      argc, argv,
      {"Trains a recommender on what users chose (neural collaborative filtering).\n"
       "--model neumf[:FACTORS] (8), --data movielens:DIR or synthetic[:USERS,ITEMS] (1000,500).",
       defaults,
       {"--augment", "--dropout", "--label-smoothing"}},
      trireme::train);
}
