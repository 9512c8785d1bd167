/* Memory of a process of a storm that is freed without a word to the library. SPDX-License-Identifier: Apache-2.0
 *
 * Another engine of the process has allocated it, and frees it. The next look withdraws its regions: who knows the
 * generation after that gets errors, or what is registered there by then. */
#include <unistd.h>

#include "storm/worker.h"

static bool can_be_freed(const struct segment *segment) {
    for (unsigned i = 0; i < segment->count; i++)
        if (segment->regions[i].state != REGION_SHARED && segment->regions[i].state != REGION_RELEASED &&
            segment->regions[i].state != REGION_NONE)
            return false;
    return segment->foreign;
}

/* Whatever call it is, it looks; what follows says by which generation at the latest. */
static void look(struct worker *w) {
    char *text;
    size_t length;
    int code = 0;
    if (chance(w, 40)) {
        code = nvlx_check(w->engine);
    } else if (chance(w, 50)) {
        code = nvlx_export(w->engine, &text, &length);
        if (!code)
            nvlx_text_free(text);
    }
    if (code)
        wrong_code(w, "nvlx_check, or nvlx_export", code);
    publish(w);
}

static void free_unasked(struct worker *w, struct segment *segment) {
    for (unsigned i = 0; i < segment->count; i++)
        if (segment->regions[i].state == REGION_SHARED)
            note_withdrawn(w, segment, i);
    struct nvlx_peer *observer = begin_observing(w);
    give_memory_back(w, segment);
    look(w);
    end_observing(w, observer, "a look for memory that was freed");
    for (unsigned i = 0; i < segment->count; i++) {
        struct record *record = record_of(w, &segment->regions[i]);
        if (segment->regions[i].state == REGION_SHARED && record)
            atomic_store(&record->freed, w->told);
    }
}

/* The regions stay, for nvlx_unregister. */
void act_free(struct worker *w) {
    struct segment *segment = find_current(w, (unsigned)draw(w, GROUPS));
    if (!segment || !can_be_freed(segment))
        return;
    const void *before = segment->base;
    complete_own(w); /* who frees memory has ended what it does there itself */
    free_unasked(w, segment);
    usleep((useconds_t)draw(w, 3000));
    for (unsigned i = 0; i < segment->count; i++) {
        struct region *region = &segment->regions[i];
        if (region->state != REGION_SHARED)
            continue;
        const int code = nvlx_unregister(region->handle, FOR_EVER);
        if (code)
            wrong_code(w, "nvlx_unregister of what was freed", code);
        note_released(w, segment, region);
    }
    board_count(w->place, COUNT_frees, 1);
    segment->current = false;
    if (chance(w, 70))
        take_again(w, segment, before);
}
