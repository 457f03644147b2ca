# The C++ tests, one executable; and the stress program, another.

find_path(DOCTEST_INCLUDE_DIR doctest/doctest.h)
if(NOT DOCTEST_INCLUDE_DIR)
  message(STATUS "upvec: doctest/doctest.h not found, the C++ tests are left out; "
                 "on Debian and Ubuntu: apt-get install doctest-dev")
  return()
endif()

file(GLOB UPVEC_TEST_SOURCES CONFIGURE_DEPENDS tests/cpp/*.cpp)
list(FILTER UPVEC_TEST_SOURCES EXCLUDE REGEX "/stress\\.cpp$")
add_executable(upvec_tests ${UPVEC_TEST_SOURCES})
upvec_compile_as_our_own(upvec_tests)
target_link_libraries(upvec_tests PRIVATE upvec::upvec)
# Not the folder it was found in: when cross-compiling that would be another system's /usr/include.
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include)
file(CREATE_LINK ${DOCTEST_INCLUDE_DIR}/doctest ${PROJECT_BINARY_DIR}/include/doctest SYMBOLIC)
target_include_directories(upvec_tests SYSTEM PRIVATE ${PROJECT_BINARY_DIR}/include)
add_test(NAME upvec_tests COMMAND upvec_tests)

add_executable(upvec_stress tests/cpp/stress.cpp)
upvec_compile_as_our_own(upvec_stress)
target_link_libraries(upvec_stress PRIVATE upvec::upvec)
add_test(NAME stress COMMAND upvec_stress)
