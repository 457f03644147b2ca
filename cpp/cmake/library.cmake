# The static library upvec::upvec: everything baseline, but one object library per instruction set.

# How our own code is compiled; nothing of this reaches those who link the library.
add_library(upvec_build INTERFACE)
target_compile_features(upvec_build INTERFACE cxx_std_20)
target_compile_options(upvec_build INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion
  # Fused multiply-add only where a kernel asks for it by intrinsic: otherwise the same batch could
  # give different codes, and so a different graph, from one instruction set to the next.
  -ffp-contract=off
  # clang: loops asked to be vectorised are not when a sanitizer watches them.
  $<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wno-pass-failed>
  $<$<BOOL:${UPVEC_WERROR}>:-Werror>)
target_compile_definitions(upvec_build INTERFACE $<$<BOOL:${UPVEC_COUNTERS}>:UPVEC_COUNTERS>)
target_include_directories(upvec_build INTERFACE
  ${PROJECT_SOURCE_DIR}/cpp/include ${PROJECT_SOURCE_DIR}/cpp/src)

function(upvec_compile_as_our_own target)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:upvec_build>)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
endfunction()

file(GLOB UPVEC_SOURCES CONFIGURE_DEPENDS cpp/src/*.cpp cpp/src/simd/*.cpp)
file(GLOB UPVEC_KERNELS CONFIGURE_DEPENDS cpp/src/simd/distance_*.cpp)
list(REMOVE_ITEM UPVEC_SOURCES ${UPVEC_KERNELS})

add_library(upvec STATIC ${UPVEC_SOURCES})
add_library(upvec::upvec ALIAS upvec)
upvec_compile_as_our_own(upvec)
target_compile_features(upvec PUBLIC cxx_std_20)
target_include_directories(upvec PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cpp/include> $<INSTALL_INTERFACE:include>)
target_link_libraries(upvec PUBLIC Threads::Threads)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(UPVEC_FLAGS_avx2 -mavx2 -mfma)
  set(UPVEC_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC's own AVX-512 headers draw these warnings up to version 12 (its bug 105593).
    list(APPEND UPVEC_FLAGS_avx512 -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
endif()

# distance_<set>.cpp. Those of another processor get no flags, and say in the function table that
# they are not there.
foreach(source IN LISTS UPVEC_KERNELS)
  string(REGEX REPLACE ".*/distance_(.*)\\.cpp$" "\\1" set "${source}")
  add_library(upvec_${set} OBJECT ${source})
  upvec_compile_as_our_own(upvec_${set})
  target_compile_options(upvec_${set} PRIVATE ${UPVEC_FLAGS_${set}})
  target_sources(upvec PRIVATE $<TARGET_OBJECTS:upvec_${set}>)
endforeach()
