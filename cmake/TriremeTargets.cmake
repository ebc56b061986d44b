# Compile settings that every Trireme target shares, and the one way to make a library of a folder.

add_library(trireme_settings INTERFACE)
target_compile_features(trireme_settings INTERFACE cxx_std_20)
target_include_directories(trireme_settings INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:include/trireme>)
set(cxx_options
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wno-unused-parameter -Wno-missing-field-initializers -Wno-restrict
  # A product and a sum must round twice everywhere, or bits would depend on where the compiler
  # fuses them. No -ffast-math, for the same reason.
  -ffp-contract=off)
target_compile_options(trireme_settings INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_options}>")

# Vector width of our own kernels. Bits do not depend on it (no contraction, no reassociation).
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(TRIREME_MARCH x86-64-v3 CACHE STRING "Instruction set that kernels/cpu is compiled for")
else()
  set(TRIREME_MARCH "" CACHE STRING "Instruction set that kernels/cpu is compiled for")
endif()

if(TRIREME_SANITIZE)
  target_compile_options(trireme_settings INTERFACE
    -fsanitize=${TRIREME_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  target_link_options(trireme_settings INTERFACE -fsanitize=${TRIREME_SANITIZE})
endif()

# trireme_library(NAME PATTERNS glob... LINK targets...): a static library of this folder's sources.
# A new source file needs no entry here.
function(trireme_library name)
  cmake_parse_arguments(ARG "" "" "PATTERNS;LINK;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${ARG_PATTERNS})
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC trireme_settings ${ARG_LINK} PRIVATE ${ARG_PRIVATE})
endfunction()
