# find_package(upvec). In a wheel all of this goes below site-packages/upvec/.

include(CMakePackageConfigHelpers)
if(SKBUILD)
  set(CMAKE_INSTALL_LIBDIR lib)
else()
  include(GNUInstallDirs)
endif()
set(UPVEC_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/upvec)

install(TARGETS upvec EXPORT upvec ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY cpp/include/ DESTINATION include)
install(EXPORT upvec NAMESPACE upvec:: DESTINATION ${UPVEC_CMAKE_DIR} FILE upvec-targets.cmake)

configure_package_config_file(cpp/cmake/upvec-config.cmake.in
                              ${PROJECT_BINARY_DIR}/upvec-config.cmake
                              INSTALL_DESTINATION ${UPVEC_CMAKE_DIR})
# While the version is 0.x, a minor release may break; so only the same minor will do.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/upvec-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/upvec-config.cmake
              ${PROJECT_BINARY_DIR}/upvec-config-version.cmake
        DESTINATION ${UPVEC_CMAKE_DIR})

if(SKBUILD)
  install(TARGETS upvec_core LIBRARY DESTINATION .)
  install(DIRECTORY bench/data/ DESTINATION data)
endif()
