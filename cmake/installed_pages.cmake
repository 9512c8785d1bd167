# Run by `cmake --install`, for the documents in the folder `documents`: a link to what is not installed there, such as a
# test, becomes its text. SPDX-License-Identifier: Apache-2.0
string(ASCII 1 mark) # for "](": CMake takes brackets in lists for its own
file(GLOB installed_pages "${documents}/README.md" "${documents}/src/doc/*.md" "${documents}/src/bindings/*/README.md")
foreach(page IN LISTS installed_pages)
    if(IS_SYMLINK "${page}") # CMAKE_INSTALL_MODE: it is the source itself
        continue()
    endif()
    file(READ "${page}" text)
    string(REPLACE "](" "${mark}" text "${text}")
    string(REGEX MATCHALL "${mark}[^):#]+[)#]" links "${text}")
    list(REMOVE_DUPLICATES links)
    cmake_path(GET page PARENT_PATH folder)
    foreach(link IN LISTS links)
        string(REGEX REPLACE "^${mark}(.*).$" "\\1" target "${link}")
        if(NOT EXISTS "${folder}/${target}")
            string(REPLACE "." "[.]" target "${target}")
            string(REGEX REPLACE "\\[([^]${mark}]*)${mark}${target}(#[^)]*)?\\)" "\\1" text "${text}")
        endif()
    endforeach()
    string(REPLACE "${mark}" "](" text "${text}")
    file(WRITE "${page}" "${text}")
endforeach()
