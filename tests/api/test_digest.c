/* Digests of registered memory: the defined value wherever the bytes lie, and another one whatever is changed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checks/digest_values.h"
#include "support.h"

#define LEAF   (16 * KIB)
#define PLACES 48

static uint64_t digest(struct nvlx_engine *engine, const void *address, size_t length) {
    uint64_t value = 0;
    OK(nvlx_digest(engine, address, length, &value));
    return value;
}

static uint8_t *pattern(void) {
    uint8_t *bytes = malloc(DIGEST_PATTERN);
    EXPECT(bytes != NULL);
    for (size_t i = 0; i < DIGEST_PATTERN; i++)
        bytes[i] = digest_byte(i);
    return bytes;
}

static char *alloc_kind(struct nvlx_engine *engine, int gpu, size_t length, uint32_t flags, size_t chunk) {
    void *address;
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    options.chunk_length = chunk;
    OK(nvlx_alloc(engine, gpu, length, &options, &address));
    return address;
}

static char *alloc_registered(struct nvlx_engine *engine, int gpu, size_t length) {
    char *address = alloc_kind(engine, gpu, length, 0, 0);
    register_range(engine, address, length, NULL, NVLX_ACCESS_NONE);
    return address;
}

/* ---- The value ----------------------------------------------------------------------------------------- */

static void known_values(void) {
    static const size_t shifts[] = {0, 1, 2, 3, 4, 6, 7, 8, 12, 16, 31, 100, 4096};
    struct nvlx_engine *engine = make_engine(0);
    uint8_t *bytes = pattern();
    for (int gpu = 0; gpu <= second_gpu(); gpu++) {
        char *memory = alloc_registered(engine, gpu, DIGEST_PATTERN + 8 * KIB);
        for (size_t i = 0; i < COUNT(shifts); i++) {
            OK(nvlx_memcpy(engine, memory + shifts[i], bytes, DIGEST_PATTERN));
            for (size_t k = 0; k < COUNT(digest_values); k++)
                if (digest(engine, memory + shifts[i], digest_values[k].length) != digest_values[k].value)
                    FAIL("of %zu bytes at %zu on GPU %d", digest_values[k].length, shifts[i], gpu);
        }
    }
    free(bytes);
    OK(nvlx_engine_destroy(engine));
}

static void long_ones(void) {
    const size_t length = DIGEST_LONG_TIMES * DIGEST_PATTERN + DIGEST_LONG_REST;
    struct holdings before = holdings();
    struct nvlx_engine *engine = make_engine(0);
    uint8_t *bytes = pattern();
    const bool host = !strcmp(nvlx_backend_name(engine), "host"); /* CUDA keeps threads and files of its own */
    char *memory = alloc_registered(engine, 0, length + 8);
    for (size_t shift = 0; shift <= 8; shift += 8) {
        for (size_t done = 0; done < length; done += DIGEST_PATTERN)
            OK(nvlx_memcpy(engine, memory + shift + done, bytes,
                           length - done < DIGEST_PATTERN ? length - done : DIGEST_PATTERN));
        EQUAL(DIGEST_LONG_VALUE, digest(engine, memory + shift, length));
    }
    free(bytes);
    OK(nvlx_engine_destroy(engine));
    if (host)
        expect_holdings(&before, "after the engine");
}

/* ---- Changes ------------------------------------------------------------------------------------------- */

/* Many values, none of which may be there twice. */
struct values {
    uint64_t *list;
    size_t count, room;
};

static void note(struct values *values, uint64_t value) {
    if (values->count == values->room) {
        values->room = values->room ? 2 * values->room : 1024;
        values->list = realloc(values->list, values->room * sizeof *values->list);
        EXPECT(values->list != NULL);
    }
    values->list[values->count++] = value;
}

static int compare(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void expect_different(struct values *values) {
    qsort(values->list, values->count, sizeof *values->list, compare);
    for (size_t i = 1; i < values->count; i++)
        if (values->list[i] == values->list[i - 1])
            FAIL("two of %zu digests are 0x%" PRIx64, values->count, values->list[i]);
    printf("           %zu digests, no two alike\n", values->count);
    free(values->list);
}

/* Bytes of the host, as they should be in the memory, and the memory. */
struct sheet {
    struct nvlx_engine *engine;
    char *memory;
    uint8_t *bytes;
    size_t length;
    struct values values;
};

static void note_sheet(struct sheet *sheet) {
    OK(nvlx_memcpy(sheet->engine, sheet->memory, sheet->bytes, sheet->length));
    note(&sheet->values, digest(sheet->engine, sheet->memory, sheet->length));
}

static void swap(uint8_t *a, uint8_t *b, size_t length) {
    for (size_t i = 0; i < length; i++) {
        const uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

static void note_swapped(struct sheet *sheet, size_t a, size_t b, size_t length) {
    if (!memcmp(sheet->bytes + a, sheet->bytes + b, length))
        return;
    swap(sheet->bytes + a, sheet->bytes + b, length);
    note_sheet(sheet);
    swap(sheet->bytes + a, sheet->bytes + b, length);
}

static void note_flips(struct sheet *sheet, uint64_t *state) {
    for (size_t i = 0; i < 400; i++) {
        const size_t at = i < 80 ? i % 40 + (i < 40 ? 0 : sheet->length - 40) : next_random(state) % sheet->length;
        sheet->bytes[at] ^= (uint8_t)(1u << i % 8);
        note_sheet(sheet);
        sheet->bytes[at] ^= (uint8_t)(1u << i % 8);
    }
}

/* Each distance that the definition could be blind to: neighbours, the same lane, the same place in other leaves. */
static void note_swaps(struct sheet *sheet) {
    static const size_t sizes[] = {1, 2, 4, 8, 16, 32, 512, LEAF};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (size_t apart = sizes[i]; apart + sizes[i] <= sheet->length; apart *= 2) {
            note_swapped(sheet, 0, apart, sizes[i]);
            note_swapped(sheet, sheet->length - apart - sizes[i], sheet->length - sizes[i], sizes[i]);
        }
    }
    for (size_t from = LEAF; from + 2 * LEAF <= sheet->length; from += LEAF)
        note_swapped(sheet, from, from + LEAF, LEAF);
}

/* What is lost, doubled, or moved by so many bytes, the length staying as it is. */
static void note_moves(struct sheet *sheet) {
    static const size_t by[] = {1, 2, 3, 4, 8, 16, 24, 32, 64, 4096, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF};
    uint8_t *kept = malloc(sheet->length);
    EXPECT(kept != NULL);
    memcpy(kept, sheet->bytes, sheet->length);
    for (size_t i = 0; i < COUNT(by); i++) {
        memmove(sheet->bytes, kept + by[i], sheet->length - by[i]);
        note_sheet(sheet);
        memcpy(sheet->bytes, kept, sheet->length);
        memmove(sheet->bytes + by[i], kept, sheet->length - by[i]);
        note_sheet(sheet);
        memset(sheet->bytes, 0, by[i]);
        note_sheet(sheet);
        memcpy(sheet->bytes, kept, sheet->length);
        memset(sheet->bytes + sheet->length - by[i], 0, by[i]);
        note_sheet(sheet);
        memcpy(sheet->bytes, kept, sheet->length);
    }
    free(kept);
}

static void changes_show(void) {
    uint64_t state = 7;
    struct sheet sheet = {.engine = make_engine(0), .length = 4 * LEAF + 1000};
    sheet.memory = alloc_registered(sheet.engine, 0, sheet.length);
    sheet.bytes = malloc(sheet.length);
    EXPECT(sheet.bytes != NULL);
    for (size_t i = 0; i < sheet.length; i++)
        sheet.bytes[i] = (uint8_t)next_random(&state);
    note_sheet(&sheet);
    note_flips(&sheet, &state);
    note_swaps(&sheet);
    note_moves(&sheet);
    for (size_t cut = 1; cut < 2 * LEAF; cut += cut < 100 ? 1 : 997)
        note(&sheet.values, digest(sheet.engine, sheet.memory, sheet.length - cut));
    for (size_t cut = 1; cut < 2 * LEAF; cut += cut < 100 ? 1 : 997)
        note(&sheet.values, digest(sheet.engine, sheet.memory + cut, sheet.length - cut));
    expect_different(&sheet.values);
    free(sheet.bytes);
    OK(nvlx_engine_destroy(sheet.engine));
}

/* Runs of one byte, which are alike except for their length; and one other byte in them, anywhere. */
static void dull_bytes_show(void) {
    const size_t length = 5 * LEAF;
    struct values values = {0};
    struct nvlx_engine *engine = make_engine(0);
    char *memory = alloc_registered(engine, 0, length);
    uint8_t *bytes = malloc(length);
    EXPECT(bytes != NULL);
    for (int dull = 0; dull < 256; dull += 255) {
        memset(bytes, dull, length);
        OK(nvlx_memcpy(engine, memory, bytes, length));
        for (size_t some = dull ? 1 : 0; some <= length;
             some += some < 200 || some % LEAF < 3 || some % LEAF > LEAF - 3 ? 1 : 61)
            note(&values, digest(engine, memory, some));
        for (size_t at = 0; at < length; at += 509) {
            OK(nvlx_memcpy(engine, memory + at, "x", 1));
            note(&values, digest(engine, memory, length));
            OK(nvlx_memcpy(engine, memory + at, bytes, 1));
        }
    }
    expect_different(&values);
    free(bytes);
    OK(nvlx_engine_destroy(engine));
}

/* ---- Placement ------------------------------------------------------------------------------------------ */

struct place {
    char *address;
    int gpu;
};

static int compare_places(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

/* Writes the pattern from `from` on, which may cross allocations of `size` bytes. */
static void write_across(struct nvlx_engine *engine, const struct place *places, size_t count, size_t size,
                         const uint8_t *bytes) {
    for (size_t i = 0; i < count; i++)
        OK(nvlx_memcpy(engine, places[i].address, bytes + i * size, size));
}

/* A run of adjacent places: its digest from anywhere in it to anywhere is that of the same bytes in one allocation. */
static void check_run(struct nvlx_engine *engine, const struct place *places, size_t count, size_t size, char *whole,
                      const uint8_t *bytes) {
    static const size_t cuts[] = {0, 1, 8, 100, 513};
    const size_t all = count * size;
    write_across(engine, places, count, size, bytes);
    OK(nvlx_memcpy(engine, whole, bytes, all));
    for (size_t i = 0; i < COUNT(cuts); i++)
        for (size_t k = 0; k < COUNT(cuts) && cuts[i] + cuts[k] < all; k++)
            EQUAL(digest(engine, whole + cuts[i], all - cuts[i] - cuts[k]),
                  digest(engine, places[0].address + cuts[i], all - cuts[i] - cuts[k]));
}

/* Returns how many borders of two GPUs were crossed. */
static size_t check_places(struct nvlx_engine *engine, size_t size, char *whole, const uint8_t *bytes, size_t *runs) {
    struct place places[PLACES];
    size_t mixed = 0;
    for (size_t i = 0; i < PLACES; i++) {
        const int gpu = i / 4 % 2 ? second_gpu() : 0;
        places[i] = (struct place){alloc_registered(engine, gpu, size), gpu};
    }
    qsort(places, PLACES, sizeof *places, compare_places);
    for (size_t first = 0, next; first < PLACES; first = next) {
        for (next = first + 1; next < PLACES && places[next].address == places[next - 1].address + size; next++)
            mixed += places[next].gpu != places[next - 1].gpu;
        *runs += next > first + 1;
        check_run(engine, places + first, next - first, size, whole, bytes);
    }
    return mixed;
}

static void borders_do_not_matter(void) {
    static const size_t sizes[] = {512, 4096, 20 * KIB - 512};
    struct nvlx_engine *engine = make_engine(0);
    uint8_t *bytes = pattern();
    char *whole = alloc_registered(engine, 0, DIGEST_PATTERN);
    size_t mixed = 0, runs = 0;
    for (size_t i = 0; i < COUNT(sizes); i++)
        mixed += check_places(engine, sizes[i], whole, bytes, &runs);
    printf("           %zu runs of allocations, %zu borders of two GPUs in them\n", runs, mixed);
    EXPECT(runs);
    if (!strcmp(nvlx_backend_name(engine), "host"))
        EXPECT(mixed);
    free(bytes);
    OK(nvlx_engine_destroy(engine));
}

static void chunks_do_not_matter(void) {
    const size_t length = 6 * MIB + 5000;
    struct nvlx_engine *engine = make_engine(0);
    char *chunks = alloc_kind(engine, 0, 8 * MIB, NVLX_ALLOC_VMM, 2 * MIB),
         *whole = alloc_registered(engine, 0, length);
    register_range(engine, chunks, 3 * MIB, NULL, NVLX_ACCESS_NONE); /* two regions that overlap */
    register_range(engine, chunks + MIB, 7 * MIB, NULL, NVLX_ACCESS_READ);
    fill(engine, chunks + 700, length, 3);
    fill(engine, whole, length, 3);
    EQUAL(digest(engine, whole, length), digest(engine, chunks + 700, length));
    OK(nvlx_engine_destroy(engine));
}

/* ---- Refusals ------------------------------------------------------------------------------------------- */

static void arguments_are_checked(void) {
    struct nvlx_engine *engine = make_engine(0);
    char *memory = alloc_kind(engine, 0, MIB, 0, 0);
    uint64_t value = 5;
    char words[40];
    register_range(engine, memory, 4096, NULL, NVLX_ACCESS_NONE);
    register_range(engine, memory + 8192, 4096, NULL, NVLX_ACCESS_WRITE);
    REFUSED(nvlx_digest(NULL, memory, 1, &value), NVLX_EINVAL, "engine");
    REFUSED(nvlx_digest(engine, NULL, 1, &value), NVLX_EINVAL, "address");
    REFUSED(nvlx_digest(engine, memory, 1, NULL), NVLX_EINVAL, "value");
    REFUSED(nvlx_digest(engine, memory, 0, NULL), NVLX_EINVAL, "value");
    snprintf(words, sizeof words, "%p", (void *)(memory + 4096));
    REFUSED(nvlx_digest(engine, memory, 4097, &value), NVLX_ERANGE, words);
    REFUSED(nvlx_digest(engine, memory, 12288, &value), NVLX_ERANGE, words);
    REFUSED(nvlx_digest(engine, memory, SIZE_MAX, &value), NVLX_ERANGE, words);
    snprintf(words, sizeof words, "%p", (void *)(memory + 8191));
    REFUSED(nvlx_digest(engine, memory + 8191, 2, &value), NVLX_ERANGE, words);
    snprintf(words, sizeof words, "%p", (void *)&value);
    REFUSED(nvlx_digest(engine, &value, 1, &value), NVLX_ERANGE, words);
    EQUAL(5, value);
    EQUAL(digest_values[0].value, digest(engine, NULL, 0));
    EQUAL(digest_values[0].value, digest(engine, words, 0));
    digest(engine, memory + 8192, 4096);
    OK(nvlx_engine_destroy(engine));
}

/* Another engine frees memory that this one has registered; its address may hold newer memory by then. */
static void freed_memory_is_refused(void) {
    struct nvlx_engine *engine = make_engine(0), *other = make_engine(0);
    char *memory = alloc_kind(other, 0, 4 * MIB, 0, 0);
    uint64_t value;
    register_range(engine, memory, 4 * MIB, NULL, NVLX_ACCESS_NONE);
    digest(engine, memory, 4 * MIB);
    OK(nvlx_free(other, memory));
    char *newer = alloc_kind(other, 0, 4 * MIB, 0, 0);
    REFUSED(nvlx_digest(engine, memory, MIB, &value), NVLX_ESTALE, "freed");
    register_range(engine, newer, 4 * MIB, NULL, NVLX_ACCESS_NONE);
    digest(engine, newer, 4 * MIB);
    OK(nvlx_engine_destroy(engine));
    OK(nvlx_engine_destroy(other));
}

/* ---- Threads -------------------------------------------------------------------------------------------- */

struct thread {
    pthread_t thread;
    struct nvlx_engine *engine;
    char *memory;
    uint64_t value;
};

static void *digest_often(void *argument) {
    const struct thread *thread = argument;
    for (int i = 0; i < 50; i++)
        EQUAL(thread->value, digest(thread->engine, thread->memory, 20 * LEAF + 9));
    return NULL;
}

static void many_at_once(void) {
    struct nvlx_engine *engine = make_engine(0);
    struct thread threads[6];
    for (size_t i = 0; i < COUNT(threads); i++) {
        char *memory = alloc_registered(engine, i % 2 ? second_gpu() : 0, 20 * LEAF + 9);
        fill(engine, memory, 20 * LEAF + 9, (uint32_t)i);
        threads[i] = (struct thread){.engine = engine, .memory = memory};
        threads[i].value = digest(engine, memory, 20 * LEAF + 9);
    }
    for (size_t i = 0; i < COUNT(threads); i++)
        EXPECT(!pthread_create(&threads[i].thread, NULL, digest_often, &threads[i]));
    for (size_t i = 0; i < COUNT(threads); i++)
        pthread_join(threads[i].thread, NULL);
    OK(nvlx_engine_destroy(engine));
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"known_values", known_values},
                                        {"long_ones", long_ones},
                                        {"changes_show", changes_show},
                                        {"dull_bytes_show", dull_bytes_show},
                                        {"borders_do_not_matter", borders_do_not_matter},
                                        {"chunks_do_not_matter", chunks_do_not_matter},
                                        {"arguments_are_checked", arguments_are_checked},
                                        {"freed_memory_is_refused", freed_memory_is_refused},
                                        {"many_at_once", many_at_once},
                                        {0}};
    return run_tests(argc, argv, tests, NULL, 60);
}
