# Every third-party library, found in one place. cmake/install_dependencies.sh installs them.

include(Packages)

find_path(DNNL_INCLUDE_DIR dnnl.hpp REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(trireme_dnnl INTERFACE)
target_include_directories(trireme_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(trireme_dnnl INTERFACE ${DNNL_LIBRARY})

# The OpenMP flavour shares one thread pool with oneDNN and our own kernels; it is preferred by path.
find_path(OPENBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas-openmp openblas
          PATHS /usr/include/x86_64-linux-gnu /usr/include/aarch64-linux-gnu REQUIRED)
find_library(OPENBLAS_LIBRARY openblas PATH_SUFFIXES openblas-openmp REQUIRED)
add_library(trireme_openblas INTERFACE)
target_include_directories(trireme_openblas SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIR})
target_link_libraries(trireme_openblas INTERFACE ${OPENBLAS_LIBRARY})
