# The Python module upvec._core.

# Without an active environment, one in .venv of the checkout is used, as the README makes it.
if(NOT DEFINED ENV{VIRTUAL_ENV} AND NOT SKBUILD AND EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
  set(Python_EXECUTABLE ${PROJECT_SOURCE_DIR}/.venv/bin/python CACHE FILEPATH "Python to build for")
endif()
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)

# Under scikit-build-core pybind11 is on the search path already.
if(NOT pybind11_DIR)
  execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir
                  OUTPUT_VARIABLE pybind11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_package(pybind11 CONFIG)
if(NOT pybind11_FOUND)
  message(FATAL_ERROR "pybind11 is not installed for ${Python_EXECUTABLE}. Activate a virtual "
                      "environment and run: pip install pybind11")
endif()

file(GLOB UPVEC_PYTHON_SOURCES CONFIGURE_DEPENDS python/src/*.cpp)
pybind11_add_module(upvec_core MODULE ${UPVEC_PYTHON_SOURCES})
upvec_compile_as_our_own(upvec_core)
target_link_libraries(upvec_core PRIVATE upvec::upvec)
set_target_properties(upvec_core PROPERTIES
  OUTPUT_NAME _core
  # Nearly all the work is in pybind11's headers: as one unit these files take 13 s of processor
  # time, one by one 60 s (GCC 12, -O3).
  UNITY_BUILD ON
  UNITY_BUILD_BATCH_SIZE 0)

if(UPVEC_PYTHON_INPLACE)
  set_target_properties(upvec_core PROPERTIES
                        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_SOURCE_DIR}/python/upvec)
endif()
