// The program that tests/process/test_interchange.py runs to use the library.
//
//   interchange_program copy IN OUT                         reads a safetensors file and writes it
//   interchange_program resnet50|gpt2 WEIGHTS MAP BATCH OUT writes logits, loss and gradients of a batch
//   interchange_program python LIBPYTHON SCRIPT             runs a script that calls our functions by ctypes
#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "core/interchange/dlpack.h"
#include "core/interchange/weights.h"
#include "core/ops/ops.h"
#include "tests/support/programs/torch_models.h"

namespace trireme::test {
namespace {

Tensor named(const LoadedTensors& loaded, const std::string& name) {
  for (const NamedTensor& t : loaded.tensors)
    if (t.name == name) return t.tensor;
  fail(ExitCode::kUsage, "the batch has no '{}'", name);
}

void copy(const std::string& in, const std::string& out) {
  const LoadedTensors loaded = load_safetensors(in);
  save_safetensors(out, loaded.tensors, loaded.metadata);
}

void compare(nn::Module& model, char** paths) {
  load_weights(model, paths[0], WeightMap::read(paths[1]));
  const LoadedTensors batch = load_safetensors(paths[2]);
  Tensor logits = model(named(batch, "x"));
  std::vector<NamedTensor> results = {{"logits", logits.detach()}};
  const Tensor labels = named(batch, "labels");
  logits = reshape(logits, {labels.numel(), logits.size(-1)});
  const Tensor loss = cross_entropy(logits, labels);
  loss.backward();
  results.push_back({"loss", loss.detach()});
  for (const NamedTensor& p : model.parameters()) results.push_back({"grad." + p.name, p.tensor.grad()});
  save_safetensors(paths[3], results);
}

int run_python(const char* library, const char* script) {
  void* python = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
  if (!python) fail(ExitCode::kUsage, "{}", dlerror());
  const auto initialize = reinterpret_cast<void (*)(int)>(dlsym(python, "Py_InitializeEx"));
  const auto run = reinterpret_cast<int (*)(const char*)>(dlsym(python, "PyRun_SimpleString"));
  if (!initialize || !run) fail(ExitCode::kUsage, "{} is not Python's library", library);
  initialize(0);
  return run(fmt::format("exec(open('{}').read())", script).c_str()) == 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "copy" && argc == 4) return copy(argv[2], argv[3]), 0;
  if (what == "python" && argc == 4) return run_python(argv[2], argv[3]);
  if (what == "resnet50" && argc == 6) {
    ResNet50 model(10);
    return compare(model, argv + 2), 0;
  }
  if (what == "gpt2" && argc == 6) {
    Gpt2 model(101, 32, 64, 4, 2);
    return compare(model, argv + 2), 0;
  }
  fail(ExitCode::kUsage, "usage: interchange_program copy|resnet50|gpt2|python ...");
}

}  // namespace
}  // namespace trireme::test

// The functions that scripts call by ctypes.
extern "C" {

using trireme::Tensor;
using trireme::dlpack::from_dlpack;
using trireme::dlpack::ManagedVersioned;

/// Takes ownership of the array and returns it as a tensor. If it is refused, prints the reason and returns
/// null.
Tensor* trireme_take(ManagedVersioned* managed) {
  try {
    return new Tensor(from_dlpack(managed));
  } catch (const trireme::Error& error) {
    std::puts(error.what());
    std::fflush(stdout);
    return nullptr;
  }
}
/// Doubles the tensor in place, or prints why that is not possible.
void trireme_double(Tensor* t) {
  try {
    trireme::mul_(*t, 2);
  } catch (const trireme::Error& error) {
    std::puts(error.what());
    std::fflush(stdout);
  }
}
double trireme_sum(Tensor* t) { return sum(*t).item(); }
void* trireme_data(Tensor* t) { return t->raw(); }
ManagedVersioned* trireme_give(Tensor* t) { return trireme::dlpack::to_dlpack(*t); }
void trireme_drop(Tensor* t) { delete t; }
}

int main(int argc, char** argv) {
  try {
    return trireme::test::main(argc, argv);
  } catch (const trireme::Error& error) {
    std::fprintf(stderr, "interchange_program: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
