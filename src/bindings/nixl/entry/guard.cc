/* Looks who has loaded the plugin. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/entry/guard.h"

#include <dirent.h>
#include <elf.h>
#include <link.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

static constexpr uint64_t table_size = 232; /* 27 functions and two words */
static constexpr char table_name[] = "_ZTV17nixlBackendEngine";

static int note_library(struct dl_phdr_info *info, size_t, void *path) {
    const char *const name = info->dlpi_name;
    const char *const slash = name ? strrchr(name, '/') : nullptr;
    if (!slash || strcmp(slash, "/libnixl.so") != 0)
        return 0;
    *static_cast<std::string *>(path) = name;
    return 1;
}

static std::string folder_of(const std::string &path) {
    return path.substr(0, path.rfind('/'));
}

/* "" if the folder of no wheel is there. The library lies in SITE/.nixl_cu12.mesonpy.libs. */
static std::string wheel_version(const std::string &library) {
    const std::string libraries = folder_of(library), site = folder_of(libraries);
    const std::string folder = libraries.substr(libraries.rfind('/') + 1); /* ".nixl_cu12.mesonpy.libs" */
    const std::string package = folder.substr(folder.starts_with('.'), folder.find('.', 1) - 1) + "-";
    const std::string_view end = ".dist-info";
    std::string version;
    DIR *const entries = opendir(site.c_str());
    while (const dirent *entry = entries ? readdir(entries) : nullptr) {
        const std::string_view name = entry->d_name;
        if (name.starts_with(package) && name.ends_with(end))
            version = name.substr(package.size(), name.size() - package.size() - end.size());
    }
    if (entries)
        closedir(entries);
    return version;
}

static bool is_known(const std::string &version) {
    int minor = 0, end = 0;
    return sscanf(version.c_str(), "1.%d.%n", &minor, &end) == 1 && end > 0 && minor >= 0 && minor <= 5;
}

/* Reads an ELF file's parts; false where the file ends before. */
template <class Item> static bool read_at(std::ifstream &file, uint64_t offset, std::vector<Item> &items) {
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char *>(items.data()), static_cast<std::streamsize>(items.size() * sizeof(Item)));
    return file.good();
}

static uint64_t symbol_size(const std::vector<Elf64_Sym> &symbols, const std::vector<char> &names) {
    for (const Elf64_Sym &symbol : symbols)
        if (symbol.st_name < names.size() &&
            !strncmp(&names[symbol.st_name], table_name, names.size() - symbol.st_name))
            return symbol.st_size;
    return 0;
}

/* Of the table of functions in a plugin of NIXL's. 0: it is not to be found. */
static uint64_t size_of_table(const std::string &plugin) {
    constexpr uint64_t most = 64 << 20; /* of a section; the real ones have some KB */
    std::ifstream file(plugin, std::ios::binary);
    std::vector<Elf64_Ehdr> head(1);
    if (!file || !read_at(file, 0, head) || memcmp(head[0].e_ident, ELFMAG, SELFMAG) != 0 ||
        head[0].e_ident[EI_CLASS] != ELFCLASS64)
        return 0;
    std::vector<Elf64_Shdr> sections(head[0].e_shnum);
    if (!read_at(file, head[0].e_shoff, sections))
        return 0;
    for (const Elf64_Shdr &section : sections) {
        if (section.sh_type != SHT_DYNSYM || section.sh_link >= sections.size() || section.sh_size > most ||
            sections[section.sh_link].sh_size > most)
            continue;
        std::vector<Elf64_Sym> symbols(section.sh_size / sizeof(Elf64_Sym));
        std::vector<char> names(sections[section.sh_link].sh_size + 1);
        names.pop_back();
        if (!read_at(file, section.sh_offset, symbols) || !read_at(file, sections[section.sh_link].sh_offset, names))
            return 0;
        names.push_back(0);
        return symbol_size(symbols, names);
    }
    return 0;
}

/* Why not, or "". */
static std::string objection() {
    std::string library;
    dl_iterate_phdr(note_library, &library);
    if (library.empty())
        return "no libnixl.so is loaded, whose version could be seen";
    const std::string version = wheel_version(library);
    const uint64_t size = size_of_table(folder_of(library) + "/plugins/libplugin_UCX.so");
    if (version.empty())
        return "the version of " + library + " is not known, as it lies in no wheel";
    if (!is_known(version))
        return "NIXL " + version + " (" + library + ") is not one that this plugin knows: 1.0 to 1.5";
    if (size && size != table_size)
        return "NIXL " + version + " (" + library + ") has a table of " + std::to_string(size) +
               " bytes of functions for backends, not " + std::to_string(table_size);
    return "";
}

bool guard_admits() {
    const std::string why = objection();
    if (why.empty())
        return true;
    const char *any = getenv("NVLX_NIXL_ANY_VERSION");
    const bool overridden = any && strcmp(any, "1") == 0;
    say("%s. %s", why.c_str(),
        overridden ? "It is tried all the same, as NVLX_NIXL_ANY_VERSION=1 says; another interface means a crash."
                   : "The backend is not loaded. NVLX_NIXL_ANY_VERSION=1 tries it all the same, which may crash.");
    return overridden;
}

} // namespace nvlx::nixl
