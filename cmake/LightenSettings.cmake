# Language level, warnings, linker, compiler cache, sanitizers.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(LIGHTEN_CCACHE ccache)
if(LIGHTEN_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # pch_defines,time_macros: what ccache needs to work with precompiled headers.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND};-E;env;CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime;${LIGHTEN_CCACHE}")
  add_compile_options(-fpch-preprocess)
endif()
find_program(LIGHTEN_MOLD mold)
if(LIGHTEN_MOLD AND NOT CMAKE_CROSSCOMPILING)
  add_link_options(-fuse-ld=mold)
endif()

add_link_options(LINKER:--as-needed)  # lighten-run draws no pictures and loads none of their libraries

add_library(lighten_settings INTERFACE)
target_include_directories(lighten_settings INTERFACE "${PROJECT_SOURCE_DIR}")
target_compile_definitions(lighten_settings INTERFACE LIGHTEN_VERSION="${PROJECT_VERSION}")
target_compile_options(lighten_settings INTERFACE -Wall -Wextra $<$<BOOL:${LIGHTEN_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 warns falsely of overlapping copies in std::string (its bug 105329).
  target_compile_options(lighten_settings INTERFACE -Wno-restrict)
endif()
foreach(sanitizer IN LISTS LIGHTEN_SANITIZE)
  add_compile_options(-fsanitize=${sanitizer} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${sanitizer})
endforeach()
