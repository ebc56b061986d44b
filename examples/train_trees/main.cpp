// Trains a network to evaluate Boolean expressions by recursion over their trees. Ordinary control flow
// builds a different autograd graph for each sample. Follows R. Socher et al., "Parsing natural scenes and
// natural language with recursive neural networks", 2011.
#include <trireme/trireme.h>

#include "examples/optimizer.h"
#include "examples/train_trees/expressions.h"

namespace trireme {

namespace {

constexpr std::int64_t kWidth = 32;

struct TreeNet : nn::Module {
  nn::Embedding tokens{kTokens, kWidth};
  nn::Linear hidden{3 * kWidth, 2 * kWidth}, merged{2 * kWidth, kWidth}, answer{kWidth, 2};

  /// Computes expressions (N,tokens) -> logits (N,2).
  Tensor forward(const Tensor& expressions) override {
    const Tensor table = tanh(tokens.weight);
    const std::vector<std::int64_t> all = expressions.to_vector<std::int64_t>();
    std::vector<Tensor> values;
    for (std::int64_t i = 0; i < expressions.size(0); ++i) {
      const std::int64_t* at = all.data() + i * expressions.size(1);
      values.push_back(value_of(at, table));
    }
    return answer(stack(values));
  }

  /// Returns the vector of the expression that begins at `at`, and moves `at` to its end.
  Tensor value_of(const std::int64_t*& at, const Tensor& table) {
    const std::int64_t token = *at++;
    const Tensor vector = select(table, 0, token);
    if (token == kFalse || token == kTrue) return vector;
    const Tensor left = value_of(at, table);
    const Tensor right = value_of(at, table);
    return tanh(merged(relu(hidden(cat({vector, left, right})))));
  }

  void visit(nn::Visitor& v) override {
    v.module("tokens", tokens);
    v.module("hidden", hidden);
    v.module("merged", merged);
    v.module("answer", answer);
  }
};

/// Returns the largest number of leaves: 12 for "synthetic", LEAVES for "synthetic:LEAVES". Throws
/// Error(kUsage) for any other text.
std::int64_t leaves_of(const std::string& spec) {
  if (spec == "synthetic") return 12;
  const std::string digits = spec.starts_with("synthetic:") ? spec.substr(10) : "";
  const bool is_number =
      !digits.empty() && digits.size() < 4 && digits.find_first_not_of("0123456789") == spec.npos;
  const std::int64_t leaves = is_number ? std::stoll(digits) : 0;
  if (leaves < 2)
    fail(ExitCode::kUsage, "--data: '{}' is not synthetic[:LEAVES] with LEAVES from 2 to 999", spec);
  return leaves;
}

void train(Job& job) {
  const JobOptions& o = job.options();
  std::int64_t leaves = 0;
  agree(job.comm(), "data", [&] { leaves = leaves_of(o.data()); });
  const Expressions training(Split::kTrain, leaves, 20000), test(Split::kTest, leaves, 2000);
  const Expressions larger(Split::kTest, 4 * leaves, 1000);
  TreeNet model;
  DistributedDataParallel ddp(model, job);
  const auto optimizer = make_optimizer(o, ddp.parameters());

  Evaluation last;
  for (auto& step : job.steps(training)) {
    for (auto& shard : step.shards()) {
      const Tensor logits = ddp(shard.x);
      step.count_correct(logits, shard.y);
      step.add(cross_entropy(logits, shard.y)).backward();
    }
    step.clip_gradients(ddp.parameters());
    optimizer->set_lr(step.lr());
    optimizer->step();
    if (step.is_evaluated()) {
      last = evaluate(job, model, test);
      step.report("eval_loss", last.loss);
      step.report("eval_accuracy", last.accuracy);
    }
  }
  if (last.samples == 0) last = evaluate(job, model, test);  // the resumed job had no step left
  job.say(fmt::format("test accuracy: {:.2f} % of {} expressions", 100 * last.accuracy, last.samples));
  const Evaluation of_larger = evaluate(job, model, larger);
  job.say(fmt::format("on trees up to four times as large: {:.2f} %", 100 * of_larger.accuracy));
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_data("synthetic");
  defaults.set_optimizer("adamw");
  defaults.set_lr(3e-3);
  return trireme::run(argc, argv,
                      {"Learns to evaluate Boolean expressions by recursion over their trees.\n"
                       "--data synthetic[:LEAVES] trains on random ones with up to LEAVES values (12).",
                       defaults,
                       {"--model", "--augment", "--dropout", "--label-smoothing"}},
                      trireme::train);
}
