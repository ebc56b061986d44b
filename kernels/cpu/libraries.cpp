// Which libraries and which CPU results depend on.
#include <cblas.h>
#include <dnnl.h>

#include "kernels/table.h"

namespace trireme {

std::string kernel_libraries() {
  const dnnl_version_t* v = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}, {} on {}", v->major, v->minor, v->patch, openblas_get_config(), openblas_get_corename());
}

}  // namespace trireme
