# What `cmake --install` puts where. Its components are: runtime (the library), development (the headers, a CMake package, a
# pkg-config file, the manual and the documents), tools (the programs and their manual), and those of wheels.
# SPDX-License-Identifier: Apache-2.0
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/nvlxfer)
set(doc_dir ${CMAKE_INSTALL_DOCDIR})

install(FILES include/nvlxfer.h include/nvlxfer.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(TARGETS nvlxfer EXPORT nvlxferTargets LIBRARY COMPONENT runtime NAMELINK_COMPONENT development)
install(EXPORT nvlxferTargets NAMESPACE nvlxfer:: DESTINATION ${package_dir} COMPONENT development)

# The tools find the library beside them, wherever the tree is moved.
if(tools)
    file(RELATIVE_PATH bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
    set_target_properties(${tools} PROPERTIES INSTALL_RPATH "$ORIGIN/${bin_to_lib}")
    install(TARGETS ${tools} RUNTIME COMPONENT tools)
endif()

configure_package_config_file(cmake/nvlxferConfig.cmake.in nvlxferConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(nvlxferConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/nvlxferConfig.cmake ${PROJECT_BINARY_DIR}/nvlxferConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)

# Paths relative to the .pc file itself: right also after `cmake --install --prefix`.
file(RELATIVE_PATH pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH libdir_in_prefix ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH includedir_in_prefix ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
file(RELATIVE_PATH docdir_in_prefix ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_DOCDIR})
set(url ${NVLX_HOMEPAGE})
if(NOT url)
    set(url "file://\${prefix}/${docdir_in_prefix}/README.md")
endif()
configure_file(cmake/nvlxfer.pc.in nvlxfer.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/nvlxfer.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)

# The documents lie as they do in the tree, so that their links to each other and to the examples hold.
install(FILES LICENSE DESTINATION ${doc_dir} COMPONENT runtime)
install(FILES README.md DESTINATION ${doc_dir} COMPONENT development)
install(DIRECTORY src/doc DESTINATION ${doc_dir}/src COMPONENT development)
foreach(binding IN ITEMS nixl python)
    install(FILES src/bindings/${binding}/README.md DESTINATION ${doc_dir}/src/bindings/${binding}
            COMPONENT development)
endforeach()
install(DIRECTORY examples DESTINATION ${doc_dir} COMPONENT development
        FILES_MATCHING PATTERN "*.c" PATTERN "*.cc" PATTERN "*.cu" PATTERN "*.h" PATTERN "*.py" PATTERN __pycache__ EXCLUDE)
install(CODE "set(documents \"\${CMAKE_INSTALL_PREFIX}/\") # of the prefix / nothing is left
              cmake_path(ABSOLUTE_PATH documents)
              cmake_path(APPEND documents \"${doc_dir}\")
              string(PREPEND documents \"\$ENV{DESTDIR}\")" COMPONENT development)
install(SCRIPT cmake/installed_pages.cmake COMPONENT development)
if(NOT SKBUILD)
    include(cmake/man.cmake)
endif()
if(NVLX_MAN)
    install(DIRECTORY ${NVLX_MAN}/man3 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT development)
    if(described)
        install(DIRECTORY ${NVLX_MAN}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT tools FILES_MATCHING PATTERN "*.1")
    endif()
endif()

# What goes into a wheel of Python's: the library in its package, its manual, and the licences of what is linked into it.
if(SKBUILD)
    install(FILES $<TARGET_FILE:nvlxfer> DESTINATION nvlxfer RENAME libnvlxfer.so.${PROJECT_VERSION_MAJOR}
            COMPONENT python)
    install(FILES include/nvlxfer.h DESTINATION nvlxfer COMPONENT python)
    if(NVLX_STATIC_DEPS)
        install(FILES ${nvlx_glog_SOURCE_DIR}/COPYING DESTINATION nvlxfer/licenses RENAME glog COMPONENT python)
        install(FILES ${nvlx_jsoncpp_SOURCE_DIR}/LICENSE DESTINATION nvlxfer/licenses RENAME jsoncpp COMPONENT python)
    endif()
endif()
