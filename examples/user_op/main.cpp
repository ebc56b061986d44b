// Defines a user's own differentiable op, with forward and backward, and trains a network with it. The op is
// the activation x + sin(a x)^2 / a with a learned a. L. Ziyin, T. Hartwig, M. Ueda, "Neural networks fail to
// learn periodic functions and how to fix it", 2020.
#include <trireme/trireme.h>

#include <cmath>
#include <optional>

#include "core/autograd/function.h"
#include "examples/optimizer.h"

namespace trireme {

namespace {

/// The op: x (any shape) and a (), both float32. It uses plain loops over memory, but could also use other
/// ops.
struct SnakeFunction : Function<SnakeFunction> {
  static Tensor forward(Context& c, const Tensor& x, const Tensor& a) {
    c.save_for_backward({x, a});
    const Tensor in = x.row_major(), out = Tensor::empty(x.shape());
    const float* from = in.data<float>();
    const auto k = static_cast<float>(a.item());
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const float wave = std::sin(k * from[i]);
      out.data<float>()[i] = from[i] + wave * wave / k;
    }
    return out;
  }

  static Tensors backward(Context& c, const Tensors& g) {
    const Tensor x = c.saved(0).row_major(), of_y = g[0].row_major(), of_x = Tensor::empty(x.shape());
    const auto k = static_cast<float>(c.saved(1).item());
    double of_a = 0;  // the loop sums in a fixed order, so the bits do not depend on the number of ranks
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const float v = x.data<float>()[i], gradient = of_y.data<float>()[i];
      const float wave = std::sin(k * v), slope = std::sin(2 * k * v);
      of_x.data<float>()[i] = gradient * (1 + slope);
      of_a += gradient * (v * slope / k - wave * wave / (k * k));
    }
    return {of_x, Tensor::scalar(of_a)};
  }
};

struct Snake : nn::Module {
  Tensor a = Tensor::scalar(1).set_requires_grad(true);
  Tensor forward(const Tensor& x) override { return SnakeFunction::apply(to(x, DType::kFloat32), a); }
  void visit(nn::Visitor& v) override { v.parameter("a", a); }
};

/// Random points of a sine wave plus a linear function. Fields: x (1) float32, y (1) float32.
class Wave final : public Dataset {
 public:
  explicit Wave(Split split) : split_(split) {}
  std::int64_t size() const override { return split_ == Split::kTrain ? 8192 : 1024; }
  std::vector<SampleField> fields() const override { return {{.shape = {1}}, {.shape = {1}}}; }
  void read(const SampleId& id, std::span<std::byte* const> to) const override {
    const auto bits = philox({static_cast<std::uint64_t>(split_)}, 0, static_cast<std::uint64_t>(id.index));
    const float place = 24 * to_unit_float(bits[0]) - 12;
    *reinterpret_cast<float*>(to[0]) = place;
    *reinterpret_cast<float*>(to[1]) = std::sin(1.5f * place) + 0.2f * place;
  }
  std::string_view unit() const override { return "points"; }

 private:
  Split split_;
};

nn::Sequential make_model(const std::string& activation) {
  nn::Sequential net(nn::Linear(1, 32));
  if (activation == "snake")
    net.push_back(std::make_shared<Snake>());
  else if (activation == "relu")
    net.push_back(std::make_shared<nn::ReLU>());
  else
    fail(ExitCode::kUsage, "--model {}: there is no such activation; use snake or relu", activation);
  net.push_back(std::make_shared<nn::Linear>(32, 1));
  return net;
}

double mean_error(Job& job, nn::Module& model, const Wave& test) {
  const auto sums = sum_over(job, test, 256, 1, [&](const Batch& b, std::span<double> figures) {
    figures[0] = sum(square(model(b.x) - b.y)).item();
  });
  return sums[0] / static_cast<double>(test.size());
}

void train(Job& job) {
  const JobOptions& o = job.options();
  const Wave training(Split::kTrain), test(Split::kTest);
  std::optional<nn::Sequential> model;
  agree(job.comm(), "model", [&] {
    if (o.data() != "wave") fail(ExitCode::kUsage, "--data {}: this program has only wave", o.data());
    model.emplace(make_model(o.model()));
  });
  DistributedDataParallel ddp(*model, job);
  const auto optimizer = make_optimizer(o, ddp.parameters());
  for (auto& step : job.steps(training)) {
    for (auto& shard : step.shards()) step.add(mse_loss(ddp(shard.x), shard.y)).backward();
    optimizer->set_lr(step.lr());
    optimizer->step();
    if (step.is_last()) step.report("eval_loss", mean_error(job, *model, test));
  }
  job.say(fmt::format("test error: {:.5f} with {}", mean_error(job, *model, test), o.model()));
  job.say_summary();
}

}  // namespace

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::JobOptions defaults;
  defaults.set_model("snake");
  defaults.set_data("wave");
  defaults.set_epochs(20);
  defaults.set_optimizer("adamw");
  defaults.set_lr(1e-2);
  defaults.set_schedule("cosine");
  return trireme::run(argc, argv,
                      {"Fits a wave with an activation of its own: --model snake, or relu to compare.",
                       defaults,
                       {"--augment", "--dropout", "--label-smoothing", "--eval-every", "--clip-norm"}},
                      trireme::train);
}
