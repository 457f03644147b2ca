# What memory and kernels give on this machine: the program that bench.limit runs.

add_executable(upvec_limit bench/limit/limit.cpp)
upvec_compile_as_our_own(upvec_limit)
target_link_libraries(upvec_limit PRIVATE upvec::upvec)
