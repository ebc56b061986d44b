include(${CMAKE_CURRENT_LIST_DIR}/Packages.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/trireme-targets.cmake)
