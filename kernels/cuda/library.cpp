#include "kernels/cuda/library.h"

#include <dlfcn.h>

#include "kernels/error.h"

namespace trireme::cuda {

Library::Library(std::initializer_list<const char*> names, const char* package) {
  std::string tried, why;
  for (const char* name : names) {
    handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    name_ = name;
    if (handle_) return;
    tried += (tried.empty() ? "" : ", ") + name_;
    if (why.empty()) why = dlerror();
  }
  fail(ExitCode::kUsage,
       "device cuda: cannot load {} ({}); install {} or set LD_LIBRARY_PATH to where it lies", tried, why,
       package);
}

void* Library::find(const char* name) const {
  void* const found = dlsym(handle_, name);
  if (!found)
    fail(ExitCode::kUsage, "device cuda: {} has no function {}; it is older than this build needs", name_,
         name);
  return found;
}

}  // namespace trireme::cuda
