# `cmake --install`: the library for find_package(trireme), and the `trireme` program.

set(package lib/cmake/trireme)
install(TARGETS trireme trireme_distributed trireme_proto trireme_core trireme_kernels trireme_settings trireme_dnnl
                trireme_openblas
        EXPORT trireme-targets ARCHIVE DESTINATION lib)
install(TARGETS trireme_cli RUNTIME DESTINATION bin)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/kernels ${PROJECT_SOURCE_DIR}/core ${PROJECT_SOURCE_DIR}/distributed
                  ${PROJECT_BINARY_DIR}/proto/distributed
        DESTINATION include/trireme FILES_MATCHING PATTERN "*.h")
install(EXPORT trireme-targets NAMESPACE trireme:: DESTINATION ${package})

include(CMakePackageConfigHelpers)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/trireme-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/trireme-config.cmake cmake/Packages.cmake ${PROJECT_BINARY_DIR}/trireme-config-version.cmake
        DESTINATION ${package})
