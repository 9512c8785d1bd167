# libplugin_NVLX.so, the backend plugin for NIXL: it uses the public header only, and exports two functions.
# SPDX-License-Identifier: Apache-2.0
add_library(plugin_NVLX MODULE
    src/bindings/nixl/entry/backend.cc
    src/bindings/nixl/entry/guard.cc
    src/bindings/nixl/entry/plugin.cc
    src/bindings/nixl/entry/settings.cc
    src/bindings/nixl/peers/answers.cc
    src/bindings/nixl/peers/card.cc
    src/bindings/nixl/peers/copier.cc
    src/bindings/nixl/peers/dram.cc
    src/bindings/nixl/peers/inbox.cc
    src/bindings/nixl/peers/link.cc
    src/bindings/nixl/peers/mail.cc
    src/bindings/nixl/process.cc
    src/bindings/nixl/say.cc
    src/bindings/nixl/transfer.cc
    src/bindings/nixl/worker.cc)
set(map ${CMAKE_CURRENT_SOURCE_DIR}/src/bindings/nixl/entry/plugin.map)
set_target_properties(plugin_NVLX PROPERTIES CXX_STANDARD 20 LINK_DEPENDS ${map})
target_include_directories(plugin_NVLX PRIVATE src)
target_link_libraries(plugin_NVLX PRIVATE nvlxfer Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(plugin_NVLX PRIVATE LINKER:--version-script=${map})
if(NOT NVLX_SANITIZE AND NOT NVLX_FUZZ)
    target_link_options(plugin_NVLX PRIVATE LINKER:-z,defs)
endif()

# What goes into the wheel nvlxfer-nixl (src/bindings/nixl/wheel/wheel.py), and into no other installation: the library
# once, and the plugin in the folders in which NIXL's wheels look, from where it finds the library.
if(NVLX_INSTALL)
    set_target_properties(plugin_NVLX PROPERTIES INSTALL_RPATH "$ORIGIN/../../nvlxfer_nixl")
    foreach(cuda IN ITEMS cu12 cu13)
        install(TARGETS plugin_NVLX LIBRARY DESTINATION .nixl_${cuda}.mesonpy.libs/plugins COMPONENT nixl_wheel
                EXCLUDE_FROM_ALL)
    endforeach()
    install(FILES $<TARGET_FILE:nvlxfer> DESTINATION nvlxfer_nixl RENAME libnvlxfer.so.${PROJECT_VERSION_MAJOR}
            COMPONENT nixl_wheel EXCLUDE_FROM_ALL)
endif()
if(COMMAND nvlx_link_for_old_systems)
    nvlx_link_for_old_systems(plugin_NVLX)
    target_sources(plugin_NVLX PRIVATE cmake/nixl_old.c)
    set_source_files_properties(cmake/nixl_old.c PROPERTIES COMPILE_OPTIONS "-fno-lto;-fexceptions")
    target_link_options(plugin_NVLX PRIVATE LINKER:--wrap=_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE)
endif()
