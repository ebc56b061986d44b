// Describes the libraries and the CPU that results depend on.
#include <cblas.h>
#include <dnnl.h>

#include "kernels/cpu/kernels.h"

namespace trireme::cpu {

const std::string& libraries() {
  // Once for all threads: OpenBLAS writes its answer into one static buffer.
  static const std::string text = [] {
    const dnnl_version_t* v = dnnl_version();
    return fmt::format("oneDNN {}.{}.{}, {} on {}", v->major, v->minor, v->patch, openblas_get_config(),
                       openblas_get_corename());
  }();
  return text;
}

}  // namespace trireme::cpu
