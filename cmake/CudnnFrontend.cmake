# Where cudnn_frontend.h lies, cuDNN's C++ front end, which consists of headers: CUDNN_FRONTEND_INCLUDE_DIR, empty
# if it cannot be had. It is taken from where it is installed, else from the Python package that brings it.

if(DEFINED CUDNN_FRONTEND_INCLUDE_DIR)
  return()
endif()
set(version 1.32)
set(package nvidia-cudnn-frontend==${version}.0)
set(folder ${CMAKE_BINARY_DIR}/cudnn_frontend)
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${folder}/include ${CUDNN_INCLUDE_DIR})
if(CUDNN_FRONTEND_INCLUDE_DIR)
  # Older ones lack functions that are called.
  file(STRINGS ${CUDNN_FRONTEND_INCLUDE_DIR}/cudnn_frontend_version.h numbers REGEX "define CUDNN_FRONTEND_(MAJOR|MINOR)_VERSION")
  string(REGEX REPLACE "[^0-9;]" "" numbers "${numbers}")
  string(REPLACE ";" "." found "${numbers}")
  if(found VERSION_GREATER_EQUAL version)
    return()
  endif()
  unset(CUDNN_FRONTEND_INCLUDE_DIR CACHE)
endif()
find_program(PYTHON3 python3)
if(PYTHON3)
  execute_process(COMMAND ${PYTHON3} -m pip download --quiet --no-deps --only-binary :all: --retries 1 --timeout 15
                          --disable-pip-version-check --dest ${folder} ${package}
                  ERROR_VARIABLE said)
  string(REGEX REPLACE "\n.*" "" said "${said}")
else()
  set(said "no python3")
endif()
file(GLOB wheel ${folder}/*.whl)
if(wheel)
  file(ARCHIVE_EXTRACT INPUT ${wheel} DESTINATION ${folder} PATTERNS include/*)
  find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h PATHS ${folder}/include NO_DEFAULT_PATH)
endif()
if(NOT CUDNN_FRONTEND_INCLUDE_DIR)
  message(STATUS "CUDA: attention is not fused, since ${package} cannot be had (${said})")
  # So that it is not asked for again at each run.
  set(CUDNN_FRONTEND_INCLUDE_DIR "" CACHE PATH "Where cudnn_frontend.h lies" FORCE)
endif()
