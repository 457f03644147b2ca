# One fuzz target per file of tests/fuzz. The library itself must be instrumented as well, so the
# flags are the whole build's: see the preset "fuzz".

if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "UPVEC_FUZZ needs clang (libFuzzer); the compiler is ${CMAKE_CXX_COMPILER_ID}")
endif()

file(GLOB UPVEC_FUZZ_SOURCES CONFIGURE_DEPENDS tests/fuzz/*.cpp)
foreach(source IN LISTS UPVEC_FUZZ_SOURCES)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  upvec_compile_as_our_own(${name})
  target_link_libraries(${name} PRIVATE upvec::upvec)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endforeach()
