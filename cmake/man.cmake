# The manual pages: of the tools, from their own help, and of the functions, from the header's comments. Sets NVLX_MAN to the
# folder with man1 and man3, if there is an awk.
# SPDX-License-Identifier: Apache-2.0
find_program(NVLX_AWK awk)
mark_as_advanced(NVLX_AWK)
if(NOT NVLX_AWK)
    message(STATUS "No manual pages: there is no awk")
    return()
endif()
set(NVLX_MAN ${CMAKE_CURRENT_BINARY_DIR}/man)
string(TIMESTAMP date "%Y-%m-%d" UTC) # SOURCE_DATE_EPOCH, if that is set
set(about -v date=${date} -v version=${PROJECT_VERSION})

set(header ${PROJECT_SOURCE_DIR}/include/nvlxfer.h)
set(script ${PROJECT_SOURCE_DIR}/cmake/man3.awk)
add_custom_command(OUTPUT ${NVLX_MAN}/man3/nvlxfer.3
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${NVLX_MAN}/man3
    COMMAND ${CMAKE_COMMAND} -E make_directory ${NVLX_MAN}/man3
    COMMAND ${NVLX_AWK} -v folder=${NVLX_MAN}/man3 ${about} -f ${script} ${header}
    DEPENDS ${script} ${header} VERBATIM)
set(pages ${NVLX_MAN}/man3/nvlxfer.3)

set(script ${PROJECT_SOURCE_DIR}/cmake/man1.awk)
file(MAKE_DIRECTORY ${NVLX_MAN}/man1)
if(CMAKE_CROSSCOMPILING)
    message(STATUS "No manual pages of the tools: they do not run here")
    set(described)
else()
    set(described ${tools})
endif()
foreach(tool IN LISTS described)
    set(page ${NVLX_MAN}/man1/${tool}.1)
    add_custom_command(OUTPUT ${page}
        COMMAND $<TARGET_FILE:${tool}> --help > ${page}.help
        COMMAND ${NVLX_AWK} -v name=${tool} ${about} -f ${script} ${page}.help > ${page}
        DEPENDS ${tool} ${script} VERBATIM)
    list(APPEND pages ${page})
endforeach()
add_custom_target(nvlxfer_man ALL DEPENDS ${pages})
