# What `cmake --install` puts where: the header, the library, the tools, a CMake package and a pkg-config file.
# SPDX-License-Identifier: Apache-2.0
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/nvlxfer)

install(FILES include/nvlxfer.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS nvlxfer EXPORT nvlxferTargets)
install(EXPORT nvlxferTargets NAMESPACE nvlxfer:: DESTINATION ${package_dir})

# The tools find the library beside them, wherever the tree is moved.
if(tools)
    file(RELATIVE_PATH bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
    set_target_properties(${tools} PROPERTIES INSTALL_RPATH "$ORIGIN/${bin_to_lib}")
    install(TARGETS ${tools})
endif()

configure_package_config_file(cmake/nvlxferConfig.cmake.in nvlxferConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(nvlxferConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/nvlxferConfig.cmake ${PROJECT_BINARY_DIR}/nvlxferConfigVersion.cmake
        DESTINATION ${package_dir})

# Paths relative to the .pc file itself: right also after `cmake --install --prefix`.
file(RELATIVE_PATH pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH libdir_in_prefix ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH includedir_in_prefix ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/nvlxfer.pc.in nvlxfer.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/nvlxfer.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
