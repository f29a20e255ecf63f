# libtorch, and the one precompiled header that every torch target reuses.
#
# libtorch is taken from CMAKE_PREFIX_PATH if the user gives one (2.11+, CUDA or not), else from the project's .venv.
set(LIGHTEN_PYTHON "${PROJECT_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python whose torch package provides libtorch")
find_package(Torch QUIET)
if(NOT Torch_FOUND)
  file(GLOB torch_prefixes "${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch/share/cmake")
  list(APPEND CMAKE_PREFIX_PATH ${torch_prefixes})
  find_package(Torch QUIET)
endif()
if(NOT Torch_FOUND)
  message(FATAL_ERROR "libtorch was not found. Run `make setup`, or give -DCMAKE_PREFIX_PATH=/path/to/libtorch, "
                      "or build the torch-free part alone with -DLIGHTEN_TORCH=OFF.")
endif()
if(Torch_VERSION AND Torch_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "libtorch ${Torch_VERSION} is too old: Lighten needs 2.11 or newer.")
endif()

# libtorch's include folder carries its own fmt. It must come after the system's headers: -idirafter keeps Debian's fmt first.
add_library(lighten_torch INTERFACE)
foreach(dir IN LISTS TORCH_INCLUDE_DIRS)
  target_compile_options(lighten_torch INTERFACE "SHELL:-idirafter ${dir}")
endforeach()
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(lighten_torch INTERFACE ${torch_flags})
list(GET TORCH_LIBRARIES 0 torch_main)
get_filename_component(torch_prefix "${Torch_DIR}/../../.." ABSOLUTE)
find_library(LIGHTEN_TORCH_CPU torch_cpu HINTS "${torch_prefix}/lib" REQUIRED)
find_library(LIGHTEN_C10 c10 HINTS "${torch_prefix}/lib" REQUIRED)
find_library(LIGHTEN_TORCH_LIB torch HINTS "${torch_prefix}/lib" REQUIRED)
target_link_libraries(lighten_torch INTERFACE ${LIGHTEN_TORCH_LIB} ${LIGHTEN_TORCH_CPU} ${LIGHTEN_C10})
get_filename_component(torch_lib_dir "${LIGHTEN_TORCH_CPU}" DIRECTORY)
target_link_options(lighten_torch INTERFACE "LINKER:-rpath,${torch_lib_dir}")

add_library(lighten_torch_pch OBJECT "${PROJECT_SOURCE_DIR}/cmake/torch_pch.cpp")
target_link_libraries(lighten_torch_pch PRIVATE lighten_settings lighten_torch fmt::fmt nlohmann_json::nlohmann_json Threads::Threads)
target_precompile_headers(lighten_torch_pch PRIVATE "${PROJECT_SOURCE_DIR}/cmake/torch_pch.h")

function(lighten_use_torch target)
  target_link_libraries(${target} PUBLIC lighten_torch)
  target_precompile_headers(${target} REUSE_FROM lighten_torch_pch)
  get_target_property(kind ${target} TYPE)
  if(kind STREQUAL "EXECUTABLE")
    # The precompiled header was made with -fPIC; a program's -fPIE would make gcc ignore it.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
endfunction()
