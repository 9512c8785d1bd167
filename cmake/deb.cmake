# Debian packages, by `cpack -G DEB` in the build folder: libnvlxfer0, named by the library's soname, libnvlxfer-dev and
# nvlxfer-tools. Configure with -DCMAKE_INSTALL_PREFIX=/usr, so that the library goes to Debian's folder for this machine.
# SPDX-License-Identifier: Apache-2.0
set(runtime libnvlxfer${PROJECT_VERSION_MAJOR})
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME nvlxfer)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "libnvlxfer's maintainers <maintainers@nvlxfer.invalid>" CACHE STRING
    "Who maintains the packages")
set(CPACK_PACKAGE_HOMEPAGE_URL ${NVLX_HOMEPAGE})
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL runtime development)
if(tools)
    list(APPEND CPACK_COMPONENTS_ALL tools)
endif()

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)

file(WRITE ${PROJECT_BINARY_DIR}/deb/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${PROJECT_BINARY_DIR}/deb/triggers)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY >=)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR})

# The first line is the summary; with the default of cpack's own summary nothing is put before it.
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${CMAKE_PROJECT_NAME} built using CMake")
set(what "libnvlxfer moves GPU memory between processes of one node over NVLink:
any range of device memory, by name or address, one range or a list of
100,000 in one call.")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME ${runtime})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "GPU memory between the processes of one node
${what}")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libnvlxfer-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "GPU memory between the processes of one node: headers
${what}
This package has the headers, for C and for C++17, and the manual.")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME nvlxfer-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_COMPONENT_TOOLS_DEPENDS runtime)
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "GPU memory between the processes of one node: tools
${what}
This package has nvlx_info, which tells what there is and what is wrong,
nvlx_ping, which visits an engine that serves, and nvlx_perf.")

# What Debian asks for beyond an installation: see there.
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/deb_staged.cmake)
include(CPack)
