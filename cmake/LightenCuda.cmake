# CUDA, only where it is asked for (-DLIGHTEN_CUDA=ON): the files below kernels/cuda/, compiled by nvcc into lighten_kernels. Without
# it kernels/accelerator.cpp says that the build has none. LIGHTEN_CUDA_ARCHITECTURES: as CMAKE_CUDA_ARCHITECTURES; 80 is the oldest.
option(LIGHTEN_CUDA "Build the kernels for graphics cards (needs nvcc)" OFF)
if(LIGHTEN_CUDA)
  set(LIGHTEN_CUDA_ARCHITECTURES "80-real;86-real;89-real;90-real;90-virtual" CACHE STRING "Compute capabilities to compile for")
  set(CMAKE_CUDA_ARCHITECTURES "${LIGHTEN_CUDA_ARCHITECTURES}")
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc 13 has it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
  endif()
endif()

function(lighten_use_cuda target)
  if(NOT LIGHTEN_CUDA)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/lighten/kernels/cuda/*.cu"
       "${PROJECT_SOURCE_DIR}/lighten/kernels/cuda/*.cpp")
  target_sources(${target} PRIVATE ${sources})
  target_compile_definitions(${target} PUBLIC LIGHTEN_CUDA)
  target_include_directories(${target} PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  set_target_properties(${target} PROPERTIES CUDA_RUNTIME_LIBRARY Static)
endfunction()
