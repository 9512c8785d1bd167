/* The bytes that a process of a storm shares: written, and looked at, by itself. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "storm/worker.h"

void fill_own(struct worker *w, const struct segment *segment, size_t offset, size_t length, uint64_t stamp,
              uint64_t index) {
    fill_words(w->bytes, length, stamp, index);
    const int code = nvlx_memcpy(w->engine, segment->base + offset, w->bytes, length);
    if (code)
        wrong_code(w, "nvlx_memcpy", code);
}

void check_own(struct worker *w, const struct segment *segment, size_t offset, size_t length, uint64_t stamp,
               uint64_t index, const char *what) {
    char wanted[DESCRIPTION_MAX], found[DESCRIPTION_MAX];
    const int code = nvlx_memcpy(w->engine, w->bytes, segment->base + offset, length);
    if (code) {
        wrong_code(w, "nvlx_memcpy", code);
        return;
    }
    const size_t count = length / WORD, other = find_other(w->bytes, count, stamp, index);
    if (other == count)
        return;
    uint64_t word;
    memcpy(&word, w->bytes + other * WORD, WORD);
    board_wrong(w->board,
                "process %u.%" PRIu32 ": %s of group %u was written to: at byte %zu of %zu of its own is %s, not %s",
                w->number, w->incarnation, what, segment->group, other * WORD, length, describe_word(word, found),
                describe_word(make_word(stamp, index + other), wanted));
}

/* What peers may only read must be as it was written. */
void act_inspect(struct worker *w) {
    const struct segment *segment = &w->segments[draw(w, SEGMENTS)];
    if (!segment->base || segment->group >= GROUPS)
        return;
    for (unsigned i = 0; i < segment->count; i++) {
        const struct region *region = &segment->regions[i];
        if (region->state == REGION_SHARED || region->state == REGION_WITHDRAWN || region->state == REGION_SUSPENDED)
            check_own(w, segment, region->offset, region->length, region->stamp, 0, "a region");
        else
            check_own(w, segment, region->offset, region->length, make_stamp(w->number, w->incarnation, 0),
                      region->offset / WORD, "withdrawn memory");
    }
}

/* ---- Who maps it --------------------------------------------------------------------------------------- */

struct map { /* a line of /proc/<pid>/maps */
    uint64_t start, end;
    uint64_t inode; /* of one device: another file system's file may have the same number */
    char device[16];
};

static bool next_map(FILE *maps, struct map *map) {
    char line[512];
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %15s %" SCNu64, &map->start, &map->end, map->device,
                   &map->inode) == 4)
            return true;
    return false;
}

/* NULL: the process has ended. */
static FILE *open_maps(int pid) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    return fopen(path, "re");
}

/* The file under the begin of what was shared. Returns whether there is one. */
static bool map_at(int pid, uint64_t address, struct map *map) {
    FILE *maps = open_maps(pid);
    bool found = false;
    while (maps && !found && next_map(maps, map))
        found = address >= map->start && address < map->end;
    if (maps)
        fclose(maps);
    return found && map->inode;
}

static bool has_mapped(int pid, const struct map *file) {
    FILE *maps = open_maps(pid);
    struct map map;
    bool found = false;
    while (maps && !found && next_map(maps, &map))
        found = map.inode == file->inode && strcmp(map.device, file->device) == 0;
    if (maps)
        fclose(maps);
    return found;
}

void check_unmapped(struct worker *w, const struct segment *segment) {
    struct map file;
    board_count(w->place, COUNT_maps, 1);
    if (!map_at(atomic_load(&w->place->pid), (uintptr_t)segment->base + segment->start, &file))
        return;
    for (unsigned i = 0; i < w->board->processes; i++) {
        const struct place *place = &w->board->places[i];
        const uint32_t incarnation = (uint32_t)atomic_load(&place->incarnation);
        if (i != w->number && has_mapped(atomic_load(&place->pid), &file) && !board_doomed(w->board, i, incarnation))
            board_wrong(w->board,
                        "process %u.%" PRIu32 ", step %" PRIu64
                        ": nobody was to use group %u any more, and process %u.%" PRIu32 " still maps it (0x%" PRIx64
                        ", file %s %" PRIu64 ")",
                        w->number, w->incarnation, w->step, segment->group, i, incarnation,
                        (uint64_t)(uintptr_t)segment->base, file.device, file.inode);
    }
}
