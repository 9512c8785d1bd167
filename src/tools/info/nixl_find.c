/* nvlx_info --nixl: looks for NIXL. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "info/nixl.h"

char *text_of(const char *format, ...) {
    va_list arguments;
    char *text;
    va_start(arguments, format);
    const int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length >= 0)
        return text;
    fputs("nvlx_info: no memory\n", stderr);
    exit(3);
}

static void *grown(void *list, size_t count, size_t size) {
    void *more = reallocarray(list, count + 1, size);
    if (more)
        return more;
    fputs("nvlx_info: no memory\n", stderr);
    exit(3);
}

static bool is_folder(const char *path) {
    struct stat status;
    return !stat(path, &status) && S_ISDIR(status.st_mode);
}

static bool is_there(const char *folder, const char *name) {
    char *path = text_of("%s/%s", folder, name);
    const bool there = !access(path, F_OK);
    free(path);
    return there;
}

/* ---- Wheels --------------------------------------------------------------------------------------------- */

/* What stands behind "WORD: " or "WORD = " in a file, at the beginning of a line; NULL: nothing does. */
static char *read_value(const char *path, const char *word, char separator) {
    FILE *file = fopen(path, "re");
    char *line = NULL, *value = NULL;
    const size_t length = strlen(word);
    size_t size = 0;
    while (file && !value && getline(&line, &size, file) > 0) {
        const char *at = line + strspn(line, " \t");
        if (strncmp(at, word, length))
            continue;
        at += length + strspn(at + length, " \t");
        if (*at++ != separator)
            continue;
        at += strspn(at, " \t");
        value = text_of("%.*s", (int)strcspn(at, "\r\n"), at);
    }
    free(line);
    if (file)
        fclose(file);
    return value;
}

/* "nixl-cu12" is written "nixl_cu12" in names of folders. */
static char *folder_name(const char *package) {
    char *name = text_of("%s", package);
    for (char *c = name; *c; c++)
        if (*c == '-')
            *c = '_';
    return name;
}

bool site_has_wheel(const char *site, const char *package, char **version) {
    char *name = folder_name(package);
    const size_t length = strlen(name);
    struct dirent **entries;
    const int count = scandir(site, &entries, NULL, versionsort);
    bool has = false;
    *version = NULL;
    for (int i = 0; i < count; i++) {
        const char *entry = entries[i]->d_name, *end = strstr(entry, ".dist-info");
        if (!strncmp(entry, name, length) && entry[length] == '-' && end && !strcmp(end, ".dist-info")) {
            char *metadata = text_of("%s/%s/METADATA", site, entry);
            free(*version);
            *version = read_value(metadata, "Version", ':');
            free(metadata);
            has = true;
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    free(name);
    return has;
}

static void add_nixl(struct nixls *nixls, struct nixl nixl) {
    nixls->list = grown(nixls->list, nixls->count, sizeof nixl);
    nixls->list[nixls->count++] = nixl;
}

/* The wheel nvlxfer-nixl makes the folders of both packages: only what is NIXL's own tells that NIXL is there. */
static void add_wheel(struct nixls *nixls, const struct site *site, const char *package) {
    char *name = folder_name(package), *libraries = text_of("%s/.%s.mesonpy.libs", site->folder, name), *version;
    const bool there = site_has_wheel(site->folder, package, &version) || is_there(libraries, "libnixl.so");
    if (there)
        add_nixl(nixls, (struct nixl){.package = package,
                                      .version = version,
                                      .library = text_of("%s/libnixl.so", libraries),
                                      .folder = text_of("%s/plugins", libraries),
                                      .from = text_of("%s in %s (%s)", package, site->folder, site->origin),
                                      .site = text_of("%s", site->folder)});
    free(libraries);
    free(name);
}

static bool is_same(const char *one, const char *other) {
    struct stat first, second;
    return !stat(one, &first) && !stat(other, &second) && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* Takes the path over. A folder that is not there, or known by another path, is left out. */
static void add_site(struct nixls *nixls, char *folder, const char *origin) {
    bool known = !is_folder(folder);
    for (size_t i = 0; i < nixls->site_count; i++)
        known = known || is_same(nixls->sites[i].folder, folder);
    if (known) {
        free(folder);
        return;
    }
    nixls->sites = grown(nixls->sites, nixls->site_count, sizeof *nixls->sites);
    struct site *site = &nixls->sites[nixls->site_count++];
    *site = (struct site){folder, origin};
    add_wheel(nixls, site, "nixl-cu12");
    add_wheel(nixls, site, "nixl-cu13");
}

/* ---- Pythons -------------------------------------------------------------------------------------------- */

/* PREFIX/LIB/python3.N/PACKAGES, of that Python or, if it is NULL, of any. */
static void add_packages(struct nixls *nixls, const char *prefix, const char *lib, const char *packages,
                         const char *python, const char *origin) {
    char *folder = text_of("%s/%s", prefix, lib);
    struct dirent **entries;
    const int count = scandir(folder, &entries, NULL, versionsort);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        if (python ? !strcmp(name, python) : !strncmp(name, "python3.", strlen("python3.")))
            add_site(nixls, text_of("%s/%s/%s", folder, name, packages), origin);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    free(folder);
}

static void add_home(struct nixls *nixls, const char *python) {
    const char *home = getenv("HOME");
    if (!home || !*home)
        return;
    char *prefix = text_of("%s/.local", home);
    add_packages(nixls, prefix, "lib", "site-packages", python, "of the user");
    free(prefix);
}

/* In the order of Python's own path. Debian's Pythons have folders of other names. */
static void add_prefix(struct nixls *nixls, const char *prefix, const char *python, const char *origin) {
    add_packages(nixls, prefix, "local/lib", "dist-packages", python, origin);
    add_packages(nixls, prefix, "lib", "site-packages", python, origin);
    add_packages(nixls, prefix, "lib64", "site-packages", python, origin);
    add_packages(nixls, prefix, "lib", "dist-packages", python, origin);
    add_site(nixls, text_of("%s/lib/python3/dist-packages", prefix), origin);
}

/* "python3.12", as the file is named that python3 is a link to; NULL: its name does not tell. */
static char *python_of(const char *path) {
    char *real = realpath(path, NULL), *python = NULL;
    const char *slash = real ? strrchr(real, '/') : NULL;
    if (slash && !strncmp(slash, "/python3.", strlen("/python3.")))
        python = text_of("%s", slash + 1);
    free(real);
    return python;
}

/* A virtual environment has its own packages, and those of the Python that it was made by only if it says so. False: it
 * is none. */
static bool add_environment(struct nixls *nixls, const char *prefix, const char *origin) {
    char *file = text_of("%s/pyvenv.cfg", prefix);
    const bool is_one = !access(file, R_OK);
    char *shared = is_one ? read_value(file, "include-system-site-packages", '=') : NULL;
    char *home = shared && !strcmp(shared, "true") ? read_value(file, "home", '=') : NULL;
    char *interpreter = text_of("%s/bin/python3", prefix), *python = python_of(interpreter);
    if (is_one)
        add_prefix(nixls, prefix, NULL, origin);
    char *end = home ? strrchr(home, '/') : NULL;
    if (end) {
        *end = '\0';
        add_home(nixls, python);
        add_prefix(nixls, home, python, "of the Python that the environment was made by");
    }
    free(python);
    free(interpreter);
    free(home);
    free(shared);
    free(file);
    return is_one;
}

/* The path of python3 on PATH, or NULL. */
static char *find_python(void) {
    const char *at = getenv("PATH");
    while (at) {
        const size_t length = strcspn(at, ":");
        char *path = text_of("%.*s/python3", (int)length, at);
        if (length && !access(path, X_OK) && !is_folder(path))
            return path;
        free(path);
        at = at[length] ? at + length + 1 : NULL;
    }
    return NULL;
}

static void add_python_on_path(struct nixls *nixls) {
    static const char origin[] = "of python3 on PATH";
    char *path = find_python(), *python = path ? python_of(path) : NULL;
    char *prefix = path ? text_of("%s", path) : NULL;
    for (int i = 0; prefix && i < 2; i++) { /* PREFIX/bin/python3 */
        char *slash = strrchr(prefix, '/');
        if (slash)
            *slash = '\0';
    }
    nixls->one_python = true;
    if (prefix && !add_environment(nixls, prefix, origin)) {
        nixls->one_python = python != NULL;
        add_home(nixls, python);
        add_prefix(nixls, prefix, python, origin);
    }
    free(prefix);
    free(python);
    free(path);
}

/* A python3 may be a script that chooses one (pyenv): then the system's own folders are what is left. */
static void look_by_itself(struct nixls *nixls) {
    const char *environment = getenv("VIRTUAL_ENV");
    if (environment && *environment) {
        nixls->one_python = true;
        if (!add_environment(nixls, environment, "of VIRTUAL_ENV"))
            add_prefix(nixls, environment, NULL, "of VIRTUAL_ENV");
        return;
    }
    add_python_on_path(nixls);
    if (nixls->site_count)
        return;
    nixls->one_python = false;
    add_home(nixls, NULL);
    add_prefix(nixls, "/usr", NULL, "of the system");
    add_prefix(nixls, "/usr/local", NULL, "of the system");
}

/* ---- Folders that are given ----------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end) {
    const size_t length = strlen(text), size = strlen(end);
    return length >= size && !strcmp(text + length - size, end);
}

/* Packages are there, or are usual there. */
static bool is_site(const char *folder) {
    char *versions[2];
    const bool cu12 = site_has_wheel(folder, "nixl-cu12", &versions[0]);
    const bool cu13 = site_has_wheel(folder, "nixl-cu13", &versions[1]);
    free(versions[0]);
    free(versions[1]);
    return cu12 || cu13 || ends_with(folder, "/site-packages") || ends_with(folder, "/dist-packages") ||
           is_there(folder, ".nixl_cu12.mesonpy.libs") || is_there(folder, ".nixl_cu13.mesonpy.libs");
}

/* The folder that has it, with "libnixl.so" and "plugins" in it. It may be a wheel's. */
static void add_library(struct nixls *nixls, char *libraries) {
    static const char *const packages[] = {"nixl-cu12", "nixl-cu13"};
    const char *package = NULL;
    char *version = NULL, *site = text_of("%s/..", libraries);
    for (int i = 0; i < 2; i++) {
        char *name = folder_name(packages[i]), *end = text_of("/.%s.mesonpy.libs", name);
        if (ends_with(libraries, end) && site_has_wheel(site, packages[i], &version))
            package = packages[i];
        free(end);
        free(name);
    }
    add_nixl(nixls, (struct nixl){.package = package,
                                  .version = version,
                                  .library = text_of("%s/libnixl.so", libraries),
                                  .folder = text_of("%s/plugins", libraries),
                                  .from = text_of("NIXL in %s", libraries),
                                  .site = package ? realpath(site, NULL) : NULL});
    free(site);
}

static void look_at(struct nixls *nixls, const char *given) {
    char *folder = realpath(given, NULL);
    if (!folder)
        return;
    char *above = text_of("%s", folder);
    char *slash = strrchr(above, '/');
    *slash = '\0';
    const size_t before = nixls->site_count;
    if (is_site(folder)) {
        add_site(nixls, text_of("%s", folder), "given");
    } else if (is_there(folder, "libnixl.so")) {
        add_library(nixls, folder);
    } else if (ends_with(folder, "/plugins") && is_there(above, "libnixl.so")) {
        add_library(nixls, above);
    } else {
        if (!add_environment(nixls, folder, "of an environment that is given"))
            add_prefix(nixls, folder, NULL, "of a Python that is given");
        if (nixls->site_count == before)
            add_nixl(nixls, (struct nixl){.folder = text_of("%s", folder), .from = text_of("given")});
    }
    free(above);
    free(folder);
}

const char *nixls_look(struct nixls *nixls, char **folders, size_t count) {
    *nixls = (struct nixls){.sites = NULL};
    for (size_t i = 0; i < count; i++)
        if (!is_folder(folders[i]))
            return folders[i];
    for (size_t i = 0; i < count; i++)
        look_at(nixls, folders[i]);
    if (!count)
        look_by_itself(nixls);
    return NULL;
}

void nixls_forget(struct nixls *nixls) {
    for (size_t i = 0; i < nixls->count; i++) {
        free(nixls->list[i].version);
        free(nixls->list[i].library);
        free(nixls->list[i].folder);
        free(nixls->list[i].from);
        free(nixls->list[i].site);
    }
    for (size_t i = 0; i < nixls->site_count; i++)
        free(nixls->sites[i].folder);
    free(nixls->list);
    free(nixls->sites);
}

/* ---- What takes the place of NIXL's own folder ---------------------------------------------------------- */

/* The one file that NIXL reads. */
static char *find_configuration(void) {
    const char *named = getenv("NIXL_CONFIG_FILE"), *home = getenv("HOME");
    if (named)
        return text_of("%s", named);
    if (home) {
        char *path = text_of("%s/.nixl.cfg", home);
        if (!access(path, F_OK))
            return path;
        free(path);
    }
    return text_of("/etc/nixl.cfg");
}

/* A TOML string on one line, in quotes of either kind. */
static char *unquoted(const char *value) {
    const char quote = *value;
    const char *end = quote == '"' || quote == '\'' ? strchr(value + 1, quote) : NULL;
    return end ? text_of("%.*s", (int)(end - value - 1), value + 1) : NULL;
}

/* Whether that version reads configuration files. */
static bool reads_configuration(const char *version) {
    int major, minor;
    return !version || sscanf(version, "%d.%d", &major, &minor) != 2 || major > 1 || (major == 1 && minor >= 2);
}

char *nixl_override(const struct nixl *nixl, char **from) {
    const char *variable = getenv("NIXL_PLUGIN_DIR");
    *from = NULL;
    if (variable) {
        *from = text_of("NIXL_PLUGIN_DIR");
        return text_of("%s", variable);
    }
    if (nixl && !reads_configuration(nixl->version))
        return NULL;
    char *path = find_configuration(), *value = read_value(path, "NIXL_PLUGIN_DIR", '=');
    char *folder = value ? unquoted(value) : NULL;
    if (folder)
        *from = text_of("NIXL_PLUGIN_DIR in %s", path);
    free(value);
    free(path);
    return folder;
}
