/* nvlx_info --nixl: where NIXL finds the plugin NVLX, and why not. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "info/nixl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/report.h"
#include "doctor/plugin.h"

/* A folder, and the NIXL that looks there. */
struct place {
    const struct nixl *nixl; /* NULL: none was found, but the environment names the folder */
    char *folder, *from;
    char *passed_by; /* why that NIXL does not look there; NULL: it does */
};

struct outcome {
    struct plugin_trial trial;
    char *plugin;
    bool present, tried, works;
    char *why, *remedy; /* unless it works */
};

struct places {
    struct place *list;
    size_t count;
};

/* ---- The order ------------------------------------------------------------------------------------------ */

static bool is_found(const struct nixl *nixl) {
    return nixl && nixl->library;
}

/* What is before it on Python's way, of the same package; or NULL. */
static const struct nixl *find_first(const struct nixls *nixls, const struct nixl *nixl) {
    for (const struct nixl *other = nixls->list; nixls->one_python && nixl->package && other < nixl; other++)
        if (other->package && !strcmp(other->package, nixl->package))
            return other;
    return NULL;
}

static char *why_passed_by(const struct nixls *nixls, const struct nixl *nixl, const char *instead) {
    const struct nixl *first = find_first(nixls, nixl);
    if (first)
        return text_of("Python takes %s of %s, which comes before", nixl->package, first->site);
    return instead ? text_of("NIXL looks only in the folder that %s names", instead) : NULL;
}

/* Takes the texts over. */
static void add_place(struct places *places, struct place place) {
    struct place *more = reallocarray(places->list, places->count + 1, sizeof place);
    if (!more) {
        fputs("nvlx_info: no memory\n", stderr);
        exit(3);
    }
    places->list = more;
    places->list[places->count++] = place;
}

/* What the environment names, in the place of NIXL's own folder. */
static void add_override(const struct nixls *nixls, const struct nixl *nixl, struct places *places) {
    char *from, *folder = nixl_override(nixl, &from);
    if (folder)
        add_place(places, (struct place){nixl, folder, from, nixl ? why_passed_by(nixls, nixl, NULL) : NULL});
}

static void add_own(const struct nixls *nixls, const struct nixl *nixl, struct places *places) {
    char *from = NULL, *instead = is_found(nixl) ? nixl_override(nixl, &from) : NULL;
    add_place(places, (struct place){nixl, text_of("%s", nixl->folder), text_of("%s", nixl->from),
                                     why_passed_by(nixls, nixl, from)});
    free(instead);
    free(from);
}

/* A folder that takes the place of NIXL's own is looked in first, by each NIXL; then it is the only one. */
static void put_in_order(const struct nixls *nixls, bool given, struct places *places) {
    *places = (struct places){.list = NULL};
    for (size_t i = 0; i < nixls->count; i++)
        if (is_found(&nixls->list[i]))
            add_override(nixls, &nixls->list[i], places);
    if (!nixls->count && !given)
        add_override(nixls, NULL, places);
    for (size_t i = 0; i < nixls->count; i++)
        add_own(nixls, &nixls->list[i], places);
}

/* ---- What is wrong -------------------------------------------------------------------------------------- */

static void blame(struct outcome *outcome, char *why, char *remedy) {
    outcome->why = why;
    outcome->remedy = remedy;
}

/* Whether NIXL's own folder has the plugin, where another one was named. */
static bool is_in_own_folder(const struct place *place) {
    if (!is_found(place->nixl) || !strcmp(place->nixl->folder, place->folder))
        return false;
    char *path = text_of("%s/" PLUGIN_FILE, place->nixl->folder);
    const bool there = !access(path, F_OK);
    free(path);
    return there;
}

static char *remedy_if_absent(const struct place *place) {
    if (is_in_own_folder(place))
        return text_of("take %s away: the plugin is in %s", place->from, place->nixl->folder);
    if (!is_found(place->nixl))
        return text_of("copy " PLUGIN_FILE " there, or name the folder that has it or a folder with NIXL's wheel");
    if (strcmp(place->nixl->folder, place->folder) != 0)
        return text_of("copy " PLUGIN_FILE " there, or let %s name the folder that has it", place->from);
    if (place->nixl->site)
        return text_of("install the wheel nvlxfer-nixl where %s is (%s), or copy " PLUGIN_FILE " to %s",
                       place->nixl->package, place->nixl->site, place->folder);
    return text_of("copy " PLUGIN_FILE " there");
}

static void blame_absent(const struct place *place, struct outcome *outcome, int code) {
    if (!*place->folder)
        blame(outcome, text_of("%s names no folder: NIXL looks nowhere", place->from),
              text_of("take %s away, or let it name a folder", place->from));
    else if (code != ENOENT)
        blame(outcome, text_of("%s cannot be reached: %s", outcome->plugin, strerror(code)),
              text_of("let this user read the folder and the file"));
    else
        blame(outcome, text_of("there is no %s", outcome->plugin), remedy_if_absent(place));
}

static void blame_file(struct outcome *outcome) {
    const char *why = outcome->trial.why;
    if (strstr(why, "version `"))
        outcome->remedy = text_of("take a plugin that was built on a system as old as this one, or with "
                                  "-DNVLX_STATIC_DEPS=ON");
    else if (strstr(why, "libnvlxfer.so"))
        outcome->remedy = text_of("let the loader find libnvlxfer.so.0: by the wheel nvlxfer-nixl, which has it, by "
                                  "LD_LIBRARY_PATH, or by ldconfig");
    else
        outcome->remedy = text_of("put a " PLUGIN_FILE " of a whole build for this machine in its place");
    outcome->why = text_of("the plugin does not load: %s", why);
}

static void judge(const struct place *place, struct outcome *outcome) {
    const struct plugin_trial *trial = &outcome->trial;
    if (!trial->loads && *trial->why)
        blame_file(outcome);
    else if (*trial->nixl_why)
        blame(outcome, text_of("NIXL itself does not load: %s", trial->nixl_why),
              text_of("install %s again, and try 'import nixl' in Python",
                      place->nixl && place->nixl->package ? place->nixl->package : "NIXL"));
    else if (trial->asked && !trial->admitted)
        blame(outcome, text_of("the plugin refuses this NIXL: %s", *trial->said ? trial->said : "it says nothing"),
              text_of("install a NIXL that the plugin knows, or a newer nvlxfer-nixl"));
    else
        outcome->works = true;
}

/* -1: no process can be made. */
static int look_into(const struct place *place, struct outcome *outcome) {
    *outcome = (struct outcome){.plugin = text_of("%s/" PLUGIN_FILE, place->folder)};
    const int code = access(outcome->plugin, F_OK) ? errno : 0;
    outcome->present = *place->folder && !code;
    if (place->passed_by) {
        outcome->why = text_of("%s", place->passed_by);
        return 0;
    }
    if (!outcome->present) {
        blame_absent(place, outcome, code);
        return 0;
    }
    if (plugin_try(place->nixl ? place->nixl->library : NULL, outcome->plugin, &outcome->trial))
        return -1;
    outcome->tried = true;
    judge(place, outcome);
    return 0;
}

/* ---- The report ----------------------------------------------------------------------------------------- */

static void tell_text(struct report *report, const char *key, const char *text) {
    if (text && *text)
        report_text(report, key, "%s", text);
    else
        report_nothing(report, key);
}

/* Yes, no, or that nobody was asked. */
static void tell_answer(struct report *report, const char *key, bool asked, bool answer) {
    if (asked)
        report_truth(report, key, answer);
    else
        report_nothing(report, key);
}

static void tell_place(struct report *report, const struct place *place, const struct outcome *outcome) {
    const struct plugin_trial *trial = &outcome->trial;
    report_open(report, NULL);
    report_text(report, "folder", "%s", place->folder);
    report_text(report, "from", "%s", place->from);
    tell_text(report, "nixl", place->nixl ? place->nixl->library : NULL);
    tell_text(report, "nixl_version", place->nixl ? place->nixl->version : NULL);
    report_truth(report, "looked_in", !place->passed_by);
    report_truth(report, "plugin_there", outcome->present);
    tell_answer(report, "loads", outcome->tried, trial->loads);
    tell_text(report, "library", trial->library);
    tell_text(report, "library_version", trial->library_version);
    tell_answer(report, "nixl_accepted", trial->asked, trial->admitted);
    if (trial->admitted && *trial->said)
        report_text(report, "plugin_says", "%s", trial->said);
    report_truth(report, "works", outcome->works);
    if (outcome->why)
        report_text(report, "why_not", "%s", outcome->why);
    if (outcome->remedy)
        report_text(report, "remedy", "%s", outcome->remedy);
    report_close(report);
}

static int tell_places(struct report *report, const struct places *places, bool *works) {
    int code = 0;
    report_open_list(report, "places");
    for (size_t i = 0; i < places->count && !code; i++) {
        struct outcome outcome;
        code = look_into(&places->list[i], &outcome);
        if (!code)
            tell_place(report, &places->list[i], &outcome);
        *works = *works || outcome.works;
        free(outcome.plugin);
        free(outcome.why);
        free(outcome.remedy);
    }
    report_close(report);
    return code;
}

static void tell_sites(struct report *report, const struct nixls *nixls) {
    report_open_list(report, "packages");
    for (size_t i = 0; i < nixls->site_count; i++) {
        char *version;
        const bool has = site_has_wheel(nixls->sites[i].folder, "nvlxfer-nixl", &version);
        report_open(report, NULL);
        report_text(report, "folder", "%s", nixls->sites[i].folder);
        report_text(report, "from", "%s", nixls->sites[i].origin);
        tell_text(report, "nvlxfer_nixl", has ? (version ? version : "of no version") : NULL);
        report_close(report);
        free(version);
    }
    report_close(report);
}

static void forget(struct places *places) {
    for (size_t i = 0; i < places->count; i++) {
        free(places->list[i].folder);
        free(places->list[i].from);
        free(places->list[i].passed_by);
    }
    free(places->list);
}

static int tell_all(const struct nixls *nixls, bool given, bool json) {
    struct report report;
    struct places places;
    bool works = false;
    put_in_order(nixls, given, &places);
    report_begin(&report, json);
    tell_sites(&report, nixls);
    const int code = tell_places(&report, &places, &works);
    if (code)
        fprintf(stderr, "nvlx_info: no process for the plugin: %s\n", strerror(errno));
    report_truth(&report, "works", works);
    if (!places.count) {
        report_text(&report, "why_not", "there is no NIXL: neither nixl-cu12 nor nixl-cu13 is in these packages");
        report_text(&report, "remedy", "install one of them, or name a folder that has it: nvlx_info --nixl FOLDER");
    }
    report_end(&report);
    forget(&places);
    return code ? 3 : works ? 0 : 1;
}

int info_nixl(char **folders, size_t count, bool json) {
    struct nixls nixls;
    const char *wrong = nixls_look(&nixls, folders, count);
    if (wrong) {
        fprintf(stderr, "nvlx_info: --nixl: there is no folder '%s'\ntry: nvlx_info --help\n", wrong);
        return 2;
    }
    const int code = tell_all(&nixls, count > 0, json);
    nixls_forget(&nixls);
    return code;
}
