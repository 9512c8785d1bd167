/* Which NIXL the plugin lets load it: folders as the wheels have them, with stand-ins for NIXL's libraries.
 * Usage: test_nixl_guard libplugin_NVLX.so TABLE OTHER_TABLE: stand-ins with the table that is known, and with another.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace fs = std::filesystem;

struct Case {
    const char *package, *version; /* "": no folder tells a version */
    bool other_table;
    const char *any_version; /* NVLX_NIXL_ANY_VERSION, or null */
    bool admitted;
    const char *words; /* that stand in what it says; "": it says nothing */
};

static const Case cases[] = {
    {"nixl_cu12", "1.0.0", false, nullptr, true, ""},
    {"nixl_cu13", "1.5.9", false, nullptr, true, ""},
    {"nixl_cu13", "1.6.0", false, nullptr, false, "NIXL 1.6.0 ("},
    {"nixl_cu13", "1.50.0", false, nullptr, false, "NIXL 1.50.0 ("},
    {"nixl_cu12", "2.0.0", false, nullptr, false, "NVLX_NIXL_ANY_VERSION=1 tries it all the same"},
    {"nixl_cu12", "0.10.1", false, nullptr, false, "is not one that this plugin knows: 1.0 to 1.5"},
    {"nixl_cu12", "1.5.1", true, nullptr, false, "has a table of 240 bytes of functions for backends, not 232"},
    {"nixl_cu12", "", false, nullptr, false, "lies in no wheel"},
    {"nixl_cu12", "1.6.0", false, "0", false, "NIXL 1.6.0 ("},
    {"nixl_cu12", "1.6.0", false, "1", true, "It is tried all the same"},
    {"nixl_cu12", "", true, "1", true, "It is tried all the same"},
};

/* A folder of packages with what of a wheel the plugin looks at. Returns the path of NIXL's library. */
static fs::path make_wheel(const fs::path &site, const Case &what, const char *table) {
    const fs::path libraries = site / ("." + std::string(what.package) + ".mesonpy.libs");
    fs::remove_all(site);
    fs::create_directories(libraries / "plugins");
    fs::copy_file(table, libraries / "libnixl.so");
    fs::copy_file(table, libraries / "plugins" / "libplugin_UCX.so");
    if (*what.version)
        fs::create_directory(site / (std::string(what.package) + "-" + what.version + ".dist-info"));
    return libraries / "libnixl.so";
}

/* As NIXL does, in a process of its own. Ends with 0 if the plugin was admitted. */
[[noreturn]] static void load(const fs::path &nixl, const char *plugin, const Case &what, const fs::path &said) {
    if (!freopen(said.c_str(), "w", stderr))
        _exit(2);
    unsetenv("NVLX_NIXL_ANY_VERSION");
    if (what.any_version)
        setenv("NVLX_NIXL_ANY_VERSION", what.any_version, 1);
    const void *const first = dlopen(nixl.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!first)
        _exit(3);
    void *const library = dlopen(plugin, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    void *const init = library ? dlsym(library, "nixl_plugin_init") : nullptr;
    if (!init)
        _exit(4);
    const bool admitted = reinterpret_cast<void *(*)()>(init)() != nullptr;
    fflush(stderr);
    _exit(admitted ? 0 : 1);
}

static bool check(const fs::path &work, const Case &what, char **paths) {
    const fs::path nixl = make_wheel(work / "site", what, what.other_table ? paths[3] : paths[2]);
    const fs::path said = work / "said";
    const pid_t child = fork();
    if (!child)
        load(nixl, paths[1], what, said);
    int status = -1;
    waitpid(child, &status, 0);
    std::ifstream file(said);
    const std::string words{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const bool right = WIFEXITED(status) && WEXITSTATUS(status) == (what.admitted ? 0 : 1) &&
                       (*what.words ? words.find(what.words) != std::string::npos : words.empty());
    printf("%s: %s %s%s: %s", right ? "ok" : "WRONG", what.package, what.version,
           what.other_table ? " with another table" : "", words.empty() ? "admitted\n" : words.c_str());
    return right;
}

int main(int count, char **paths) {
    std::string work = (fs::temp_directory_path() / "nvlxfer-guard.XXXXXX").string();
    if (count != 4 || !mkdtemp(work.data())) {
        fprintf(stderr, "usage: test_nixl_guard libplugin_NVLX.so TABLE OTHER_TABLE\n");
        return 1;
    }
    setvbuf(stdout, nullptr, _IONBF, 0);
    bool all = true;
    for (const Case &what : cases)
        all = check(work, what, paths) && all;
    fs::remove_all(work);
    return all ? 0 : 1;
}
