# What Debian's policy asks for beyond an installation; run by cpack on what goes into the packages: copyright and changelog
# of each, compressed manual pages, no search paths in programs, no second copy of the licence.
# SPDX-License-Identifier: Apache-2.0
if(NOT CPACK_GENERATOR STREQUAL "DEB")
    return()
endif()
string(TIMESTAMP year "%Y" UTC) # of SOURCE_DATE_EPOCH, if that is set, as the next
string(TIMESTAMP now "%a, %d %b %Y %H:%M:%S +0000" UTC)

# Without it cpack makes packages that depend on nothing, and does not fail.
find_program(DPKG_SHLIBDEPS dpkg-shlibdeps)
if(NOT DPKG_SHLIBDEPS)
    message(FATAL_ERROR "dpkg-shlibdeps was not found: install dpkg-dev")
endif()

function(run)
    execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(compress_pages folder)
    file(GLOB pages ${folder}/man*/*)
    foreach(page IN LISTS pages)
        if(IS_SYMLINK ${page})
            file(READ_SYMLINK ${page} target)
            file(REMOVE ${page})
            file(CREATE_LINK ${target}.gz ${page}.gz SYMBOLIC)
        else()
            run(gzip -9nf ${page})
        endif()
    endforeach()
endfunction()

foreach(component IN LISTS CPACK_COMPONENTS_ALL)
    set(root ${CPACK_TEMPORARY_DIRECTORY}/${component}${CPACK_PACKAGING_INSTALL_PREFIX})
    string(TOUPPER ${component} key)
    set(package ${CPACK_DEBIAN_${key}_PACKAGE_NAME})
    set(folder ${root}/share/doc/${package})
    file(WRITE ${folder}/copyright "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: libnvlxfer

Files: *
Copyright: ${year} the authors of libnvlxfer
License: Apache-2.0
 On Debian systems, the complete text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
")
    file(WRITE ${folder}/changelog "${CPACK_PACKAGE_NAME} (${CPACK_PACKAGE_VERSION}) unstable; urgency=medium

  * Made by cpack from the project's own tree.

 -- ${CPACK_PACKAGE_CONTACT}  ${now}
")
    run(gzip -9n ${folder}/changelog)
    if(component STREQUAL runtime)
        file(REMOVE_RECURSE ${root}/share/doc/nvlxfer) # the licence
        file(WRITE ${root}/share/lintian/overrides/${package}
"# The trigger that lintian asks for is there. CPack's generator cannot be kept from writing the scripts too.
${package}: maintscript-calls-ldconfig [postinst]
${package}: maintscript-calls-ldconfig [postrm]
")
    endif()
    compress_pages(${root}/share/man)
    file(GLOB programs ${root}/bin/*)
    foreach(program IN LISTS programs)
        file(RPATH_REMOVE FILE ${program})
    endforeach()
endforeach()
