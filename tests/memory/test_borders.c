/* Random lists over the borders of allocations, against a model: every byte of what is written to, after every list,
 * and of the rest when a world ends.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_borders               a few lists of each kind
 *        test_borders COUNT SEED    COUNT lists of each kind, from this seed on
 *
 * A world has sides: this process, and its peers, or itself once more. A side has allocations of 512 bytes to 8 MiB, of
 * all kinds of memory, as many of them side by side as the backend puts there. Half of them are only read from, half
 * only written to. What is registered without a gap, whatever allocations it lies in, is a stretch: ops lie in one,
 * anywhere in it, and most continue where the one before them ended. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

#define PLACES           10 /* allocations of a side for each use */
#define PLACE_MAX        (8 * MIB)
#define REGIONS          96   /* of a side, at most */
#define OPS_MAX          9500 /* more than are planned as one */
#define PEERS_MAX        2
#define LISTS_BY_DEFAULT 80

static uint64_t state;

static size_t below(size_t limit) {
    return limit ? next_random(&state) % limit : 0;
}

/* ---- A side -------------------------------------------------------------------------------------------- */

enum { SOURCE, TARGET, USES }; /* what memory is for */

struct place { /* an allocation */
    uint64_t address, size;
    uint32_t use;
    uint64_t from, to; /* of it, what is registered; from == to: nothing */
};

struct side {
    struct place places[USES * PLACES]; /* sorted by address */
    size_t count;
    uint8_t *model[USES * PLACES]; /* in the test's process */
};

static char *pointer(uint64_t address) {
    return (char *)(uintptr_t)address;
}

static int compare_places(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

static size_t random_size(void) {
    const size_t steps = below(3) ? below(64) : below(6) ? below(1024) : below(16384);
    const size_t size = (below(4) ? 512 : 4096) * (1 + steps) + (below(12) ? 0 : below(512));
    return size < PLACE_MAX ? size : PLACE_MAX;
}

/* Memory of one kind for a side; of chunks, in some reservations. */
static struct place make_place(struct nvlx_engine *engine, uint32_t use, uint32_t flags) {
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    options.chunk_length = 2 * MIB;
    struct place place = {.size = flags & NVLX_ALLOC_VMM ? 2 * MIB * (1 + below(2)) : random_size(), .use = use};
    void *address;
    if (nvlx_alloc(engine, 0, place.size, &options, &address))
        OK(nvlx_alloc(engine, 0, place.size, NULL, &address)); /* a GPU need not have all kinds */
    place.address = (uint64_t)(uintptr_t)address;
    const bool whole = below(8);
    place.from = place.address + (whole ? 0 : below(place.size / 4));
    place.to = place.address + place.size - (whole ? 0 : below(place.size / 4));
    return place;
}

/* What memory has at first: bytes that tell its address. To be freed. */
static uint8_t *first_bytes(const struct place *place) {
    uint8_t *bytes = malloc(place->size);
    EXPECT(bytes != NULL);
    for (uint64_t i = 0; i < place->size; i++) {
        const uint64_t at = place->address + i;
        bytes[i] = (uint8_t)(at * 7 + (at >> 8) * 13 + (at >> 12) * 101 + (at >> 20) * 29);
    }
    return bytes;
}

static void fill_place(struct nvlx_engine *engine, const struct place *place) {
    uint8_t *bytes = first_bytes(place);
    OK(nvlx_memcpy(engine, pointer(place->address), bytes, place->size));
    free(bytes);
}

static void add_region(struct nvlx_engine *engine, struct nvlx_region **regions, size_t *count, uint64_t from,
                       uint64_t to, uint32_t use) {
    if (from < to)
        regions[(*count)++] = register_range(engine, pointer(from), to - from, NULL,
                                             use == SOURCE ? NVLX_ACCESS_READ : NVLX_ACCESS_WRITE);
}

/* Registers what is to be: as one region, as two that adjoin, or as two that overlap; and now and then once more from
 * the middle of one place to the middle of the next, if that can be. */
static size_t register_side(struct nvlx_engine *engine, const struct side *side, struct nvlx_region **regions) {
    size_t count = 0;
    for (size_t i = 0; i < side->count; i++) {
        const struct place *place = &side->places[i];
        const uint64_t length = place->to - place->from, middle = place->from + below(length), over = below(3);
        if (over == 0)
            add_region(engine, regions, &count, place->from, place->to, place->use);
        else
            add_region(engine, regions, &count, place->from, middle, place->use);
        if (over == 1)
            add_region(engine, regions, &count, middle, place->to, place->use);
        if (over == 2)
            add_region(engine, regions, &count, middle - (middle - place->from) / 2, place->to, place->use);
        const struct place *next = place + 1;
        if (i + 1 < side->count && place->to == next->from && place->use == next->use && below(2)) {
            struct nvlx_region_options options;
            nvlx_region_options_init(&options);
            options.access = place->use == SOURCE ? NVLX_ACCESS_READ : NVLX_ACCESS_WRITE;
            if (!nvlx_register(engine, pointer(middle), next->from + below(next->size) - middle, &options,
                               &regions[count]))
                count++; /* chunks of two reservations */
        }
    }
    return count;
}

static size_t make_side(struct nvlx_engine *engine, struct side *side, struct nvlx_region **regions) {
    const uint32_t kinds[] = {0, 0, 0, 0, NVLX_ALLOC_VMM, NVLX_ALLOC_POOL}, kind = kinds[below(COUNT(kinds))];
    const size_t each = kind == NVLX_ALLOC_VMM ? 2 : PLACES;
    side->count = 0;
    for (uint32_t use = 0; use < USES; use++)
        for (size_t i = 0; i < each; i++)
            side->places[side->count++] = make_place(engine, use, kind);
    qsort(side->places, side->count, sizeof side->places[0], compare_places);
    for (size_t i = 0; i < side->count; i++)
        fill_place(engine, &side->places[i]);
    return register_side(engine, side, regions);
}

static void drop_side(struct nvlx_engine *engine, const struct side *side, struct nvlx_region *const *regions,
                      size_t count) {
    for (size_t i = 0; i < count; i++)
        OK(nvlx_unregister(regions[i], PATIENCE));
    for (size_t i = 0; i < side->count; i++)
        OK(nvlx_free(engine, pointer(side->places[i].address)));
}

static void make_model(struct side *side) {
    for (size_t i = 0; i < side->count; i++)
        side->model[i] = first_bytes(&side->places[i]);
}

static void compare(const struct side *side, size_t place, const uint8_t *bytes, const char *whose, const char *when) {
    const uint8_t *model = side->model[place];
    size_t at = 0;
    if (!memcmp(bytes, model, side->places[place].size))
        return;
    while (bytes[at] == model[at])
        at++;
    FAIL("%s: %s byte %zu of the place at 0x%" PRIx64 " + %" PRIu64 " is 0x%02x, not 0x%02x", when, whose, at,
         side->places[place].address, side->places[place].size, bytes[at], model[at]);
}

/* ---- A peer that is another process -------------------------------------------------------------------- */

enum task { BUILD, DUMP, DROP };

struct order {
    enum task task;
    uint32_t first_use; /* DUMP: all places of this use and later ones */
    uint64_t seed;
};

static uint8_t scratch[PLACE_MAX];

static void send_side(struct nvlx_engine *engine, const struct side *side, int socket) {
    char *text;
    size_t length;
    OK(nvlx_export(engine, &text, &length));
    put(socket, side, sizeof *side);
    put_text(socket, text, length);
    nvlx_text_free(text);
}

static void send_bytes(struct nvlx_engine *engine, const struct place *place, int socket) {
    OK(nvlx_memcpy(engine, scratch, pointer(place->address), place->size));
    put(socket, scratch, place->size);
}

static void neighbour_role(int socket) {
    static struct side side;
    struct nvlx_region *regions[REGIONS];
    size_t count = 0;
    char address[64];
    struct order order;
    struct nvlx_engine *engine = make_engine(0);
    snprintf(address, sizeof address, "@nvlx-borders-%d", (int)getpid());
    OK(nvlx_serve(engine, address, NULL));
    while (get_or_end(socket, &order, sizeof order)) {
        if (order.task == BUILD) {
            state = order.seed;
            count = make_side(engine, &side, regions);
            send_side(engine, &side, socket);
        } else if (order.task == DUMP) {
            for (size_t i = 0; i < side.count; i++)
                if (side.places[i].use >= order.first_use)
                    send_bytes(engine, &side.places[i], socket);
        } else {
            drop_side(engine, &side, regions, count);
            put(socket, "", 1);
        }
    }
    OK(nvlx_engine_destroy(engine));
}

/* ---- A world ------------------------------------------------------------------------------------------- */

struct far {
    struct child child; /* pid 0: this process */
    struct nvlx_peer *peer;
    struct side side;
    struct nvlx_region *regions[REGIONS]; /* of this process */
    size_t region_count;
};

static struct world {
    struct nvlx_engine *engine;
    struct side side;
    struct nvlx_region *regions[REGIONS];
    size_t region_count;
    struct far far[PEERS_MAX];
    size_t far_count;
    size_t borders; /* met so far: places side by side of one use */
} world;

static size_t count_borders(const struct side *side) {
    size_t borders = 0;
    for (size_t i = 1; i < side->count; i++)
        borders += side->places[i - 1].to == side->places[i].from && side->places[i - 1].use == side->places[i].use;
    return borders;
}

static void build_far(struct far *far) {
    const struct order order = {.task = BUILD, .seed = 1 + next_random(&state)};
    char *text;
    size_t length;
    if (far->child.pid) {
        put(far->child.socket, &order, sizeof order);
        get(far->child.socket, &far->side, sizeof far->side);
        text = get_text(far->child.socket, &length);
        OK(nvlx_peer_open(world.engine, text, length, &far->peer));
        free(text);
    } else {
        far->region_count = make_side(world.engine, &far->side, far->regions);
        far->peer = peer_of(world.engine, world.engine);
    }
    make_model(&far->side);
    world.borders += count_borders(&far->side);
}

/* Maps all of a peer in this or that order, so that mappings lie side by side too, or leaves it to the transfers. */
static void map_far(const struct far *far) {
    const size_t order = below(3), count = far->side.count;
    for (size_t i = 0; i < count && order; i++) {
        const struct place *place = &far->side.places[order == 1 ? i : count - 1 - i];
        OK(nvlx_peer_map(far->peer, 0, place->from, place->to - place->from));
    }
}

static void begin_world(uint64_t seed) {
    state = seed;
    world.region_count = make_side(world.engine, &world.side, world.regions);
    make_model(&world.side);
    world.borders += count_borders(&world.side);
    for (size_t i = 0; i < world.far_count; i++)
        build_far(&world.far[i]);
    for (size_t i = 0; i < world.far_count; i++)
        map_far(&world.far[i]);
}

static void free_model(struct side *side) {
    for (size_t i = 0; i < side->count; i++)
        free(side->model[i]);
}

static void end_world(void) {
    const struct order order = {.task = DROP};
    char done;
    for (size_t i = 0; i < world.far_count; i++) {
        struct far *far = &world.far[i];
        OK(nvlx_peer_close(far->peer));
        free_model(&far->side);
        if (far->child.pid) {
            put(far->child.socket, &order, sizeof order);
            get(far->child.socket, &done, 1);
        } else {
            drop_side(world.engine, &far->side, far->regions, far->region_count);
        }
    }
    drop_side(world.engine, &world.side, world.regions, world.region_count);
    free_model(&world.side);
}

static void verify_place(const struct side *side, size_t place, int socket, const char *whose, const char *when) {
    const size_t size = side->places[place].size;
    if (socket >= 0)
        get(socket, scratch, size);
    else
        OK(nvlx_memcpy(world.engine, scratch, pointer(side->places[place].address), size));
    compare(side, place, scratch, whose, when);
}

static void verify(uint32_t first_use, const char *when) {
    const struct order order = {.task = DUMP, .first_use = first_use};
    for (size_t i = 0; i < world.side.count; i++)
        if (world.side.places[i].use >= first_use)
            verify_place(&world.side, i, -1, "the local", when);
    for (size_t f = 0; f < world.far_count; f++) {
        const struct far *far = &world.far[f];
        if (far->child.pid)
            put(far->child.socket, &order, sizeof order);
        for (size_t i = 0; i < far->side.count; i++)
            if (far->side.places[i].use >= first_use)
                verify_place(&far->side, i, far->child.pid ? far->child.socket : -1, "the peer's", when);
    }
}

/* ---- Lists --------------------------------------------------------------------------------------------- */

struct stretch {
    uint64_t from, to;
};

/* The stretch of a use that a place lies in. */
static struct stretch stretch_of(const struct side *side, size_t place) {
    const struct place *places = side->places;
    size_t first = place, last = place;
    while (first > 0 && places[first - 1].use == places[first].use && places[first - 1].to == places[first].from)
        first--;
    while (last + 1 < side->count && places[last + 1].use == places[last].use &&
           places[last].to == places[last + 1].from)
        last++;
    return (struct stretch){places[first].from, places[last].to};
}

static size_t random_place(const struct side *side, uint32_t use) {
    size_t place;
    do
        place = below(side->count);
    while (side->places[place].use != use);
    return place;
}

/* Where the ops of one direction with one peer have got to. */
struct course {
    const struct side *from, *to;
    uint64_t next_source, next_target; /* where the last op ended */
    struct stretch source, target;     /* in which it lay */
    uint64_t done[USES * PLACES];      /* how far each place has been written to: all before it may be, in this list */
};

/* Takes [at, at + length) of the target for this list, if nobody has it. Marks its places. */
static bool take_target(struct course *course, uint64_t at, uint64_t length) {
    for (size_t i = 0; i < course->to->count; i++) {
        const struct place *place = &course->to->places[i];
        if (at < place->address + place->size && place->address < at + length && at < course->done[i])
            return false;
    }
    for (size_t i = 0; i < course->to->count; i++) {
        const struct place *place = &course->to->places[i];
        if (at < place->address + place->size && place->address < at + length)
            course->done[i] = at + length < place->address + place->size ? at + length : place->address + place->size;
    }
    return true;
}

/* A start in a stretch, mostly a little before a border in it. */
static uint64_t random_start(const struct side *side, uint32_t use, struct stretch *stretch, size_t length) {
    const size_t place = random_place(side, use);
    const struct place *chosen = &side->places[place];
    *stretch = stretch_of(side, place);
    uint64_t at = chosen->from + below(chosen->to - chosen->from);
    if (below(3)) {
        const uint64_t back = below(3) ? length / (1 + below(3)) : below(2) ? length : 0;
        at = chosen->to - (back < chosen->to - stretch->from ? back : chosen->to - stretch->from);
    }
    return at < stretch->to ? at : stretch->from;
}

static size_t random_length(size_t most) {
    const size_t choice = below(10), length = choice == 0   ? below(3)
                                              : choice == 1 ? below(3 * MIB)
                                              : choice == 2 ? below(200 * KIB)
                                              : choice <= 5 ? 512 * below(20)
                                                            : below(6000);
    return length < most ? length : below(most);
}

/* The next op of a course: false if it found no room. */
static bool next_op(struct course *course, size_t most, uint64_t *source, uint64_t *target, size_t *length) {
    *length = random_length(most);
    const bool source_on = below(4) && course->next_source < course->source.to;
    const bool target_on = below(4) && course->next_target < course->target.to;
    *source = source_on ? course->next_source : random_start(course->from, SOURCE, &course->source, *length);
    *target = target_on ? course->next_target : random_start(course->to, TARGET, &course->target, *length);
    if (*length > course->source.to - *source)
        *length = course->source.to - *source;
    if (*length > course->target.to - *target)
        *length = course->target.to - *target;
    if (*length && !take_target(course, *target, *length)) {
        course->next_source = course->source.to;
        course->next_target = course->target.to;
        return false;
    }
    course->next_source = *source + *length;
    course->next_target = *target + *length;
    return true;
}

/* Does to the model what an op does, byte by byte over whatever places it lies in. */
static uint8_t *in_model(const struct side *side, uint64_t address, uint64_t *room) {
    for (size_t i = 0; i < side->count; i++) {
        const struct place *place = &side->places[i];
        if (address - place->address < place->size) {
            *room = place->size - (address - place->address);
            return side->model[i] + (address - place->address);
        }
    }
    FAIL("0x%" PRIx64 " is in no place", address);
}

static void apply(const struct side *to, uint64_t target, const struct side *from, uint64_t source, uint64_t length) {
    while (length) {
        uint64_t room_to, room_from;
        uint8_t *into = in_model(to, target, &room_to);
        const uint8_t *out = in_model(from, source, &room_from);
        uint64_t part = length < room_to ? length : room_to;
        part = part < room_from ? part : room_from;
        memcpy(into, out, part);
        target += part;
        source += part;
        length -= part;
    }
}

static struct nvlx_op ops[OPS_MAX];

static size_t make_list(void) {
    struct course courses[2 * PEERS_MAX];
    const size_t one_way = below(3) ? 2 * world.far_count : below(2 * world.far_count); /* or both ways, all peers */
    const bool lengthy = below(40) == 0;
    const size_t wanted = lengthy ? OPS_MAX : below(4) ? 1 + below(16) : 1 + below(700);
    const size_t most = lengthy ? 64 + below(512) : below(3) ? 5 * MIB : 20 * KIB;
    size_t count = 0;
    memset(courses, 0, sizeof courses);
    for (size_t i = 0; i < COUNT(courses); i++) {
        const struct side *far = &world.far[i / 2].side;
        courses[i].from = i % 2 ? &world.side : far;
        courses[i].to = i % 2 ? far : &world.side;
    }
    for (size_t tries = 0; count < wanted && tries < 2 * wanted; tries++) {
        const size_t way = one_way < 2 * world.far_count ? one_way : below(2 * world.far_count);
        struct course *course = &courses[way];
        uint64_t source, target;
        size_t length;
        if (way % 2 == 0) /* all that write here share what is written */
            for (size_t i = 0; i < 2 * world.far_count; i += 2)
                for (size_t k = 0; k < world.side.count; k++)
                    if (courses[i].done[k] > course->done[k])
                        course->done[k] = courses[i].done[k];
        if (!next_op(course, most, &source, &target, &length))
            continue;
        ops[count++] = make_op(way % 2 ? NVLX_OP_WRITE : NVLX_OP_READ, world.far[way / 2].peer,
                               pointer(way % 2 ? source : target), way % 2 ? target : source, length);
    }
    return count;
}

static void apply_list(size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct side *far = ops[i].peer == world.far[0].peer ? &world.far[0].side : &world.far[1].side;
        const uint64_t local = (uint64_t)(uintptr_t)ops[i].local;
        if (ops[i].opcode == NVLX_OP_READ)
            apply(&world.side, local, far, ops[i].remote, ops[i].length);
        else
            apply(far, ops[i].remote, &world.side, local, ops[i].length);
    }
}

static void run_list(const struct nvlx_transfer_options *options, size_t count) {
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    if (below(4)) {
        OK(nvlx_transfer(world.engine, ops, count, options, &request));
        finish(request);
        return;
    }
    OK(nvlx_prepare(world.engine, ops, count, options, &prepared));
    for (size_t posts = 1 + below(2); posts; posts--) {
        OK(nvlx_post(prepared, NULL, &request));
        finish(request);
    }
    OK(nvlx_prepared_free(prepared));
}

/* In how many lists a world serves. */
static size_t lists_a_world(size_t lists) {
    return lists < 1000 ? 10 : 40;
}

static size_t lists_wanted(void) {
    const char *text = getenv("BORDERS_COUNT");
    const size_t by_default = sanitized() ? LISTS_BY_DEFAULT / 2 : LISTS_BY_DEFAULT;
    return text ? (size_t)strtoull(text, NULL, 10) : by_default;
}

static uint64_t first_seed(void) {
    const char *text = getenv("BORDERS_SEED");
    return text ? 1 + strtoull(text, NULL, 10) * UINT64_C(1000003) : 1;
}

static void run_worlds(size_t processes) {
    const size_t lists = lists_wanted(), each = lists_a_world(lists);
    char when[96];
    world.engine = make_engine(0);
    world.far_count = processes ? processes : 1;
    for (size_t i = 0; i < processes; i++)
        child_start(&world.far[i].child, "neighbour");
    for (size_t list = 0; list < lists; list++) {
        const uint64_t seed = first_seed() + list / each;
        if (list % each == 0)
            begin_world(seed);
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = (uint32_t)below(4);
        const size_t count = make_list();
        snprintf(when, sizeof when, "list %zu (seed %" PRIu64 "), %zu ops, mechanism %u", list, seed, count,
                 (unsigned)options.mechanism);
        run_list(&options, count);
        apply_list(count);
        const bool last = list % each == each - 1 || list + 1 == lists;
        verify(last ? SOURCE : TARGET, when);
        if (last)
            end_world();
    }
    for (size_t i = 0; i < processes; i++)
        child_end(&world.far[i].child);
    OK(nvlx_engine_destroy(world.engine));
    printf("%zu lists, %zu borders\n", lists, world.borders);
    EXPECT(world.borders > 0);
}

static void one_peer(void) {
    run_worlds(1);
}

static void two_peers(void) {
    run_worlds(2);
}

static void own_process(void) {
    run_worlds(0);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"one_peer", one_peer}, {"two_peers", two_peers}, {"own_process", own_process}, {0}};
    static const struct role roles[] = {{"neighbour", neighbour_role}, {0}};
    if (argc == 3 && argv[1][0] >= '0' && argv[1][0] <= '9') {
        setenv("BORDERS_COUNT", argv[1], 1);
        setenv("BORDERS_SEED", argv[2], 1);
        argc = 1;
    }
    return run_tests(argc, argv, tests, roles, 60 + (unsigned)(lists_wanted() / 4));
}
