/* Segment, region and process identity as plain records: what the modules above the devices share, and what a
 * descriptor carries.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_RECORDS_H
#define NVLXI_BASE_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NVLXI_UUID_BYTES   16
#define NVLXI_HANDLE_BYTES 64
#define NVLXI_NAME_MAX     255          /* bytes of a region's name, without the final NUL */
#define NVLXI_SEGMENTS_MAX (1u << 18)   /* in one descriptor */
#define NVLXI_REGIONS_MAX  (1u << 20)   /* in one descriptor */
#define NVLXI_TEXT_MAX     (256u << 20) /* bytes of one descriptor */
#define NVLXI_NO_SEGMENT   UINT32_MAX   /* the segment index of a region of 0 bytes */
#define NVLXI_GONE         UINT32_MAX   /* the access of a region that was removed since */

#define NVLXI_ADDRESS_MAX 107 /* bytes of a serving address, without the final NUL: of sun_path */
#define NVLXI_ENGINE_ID   32  /* digits of an engine's id */

/* How a segment is shared. The values are this process's own; the wire has names (format.h). */
enum nvlxi_kind {
    NVLXI_KIND_UNKNOWN = 0,     /* of a newer minor version: kept, but cannot be opened */
    NVLXI_KIND_CUDA_MALLOC = 1, /* by a legacy IPC handle */
    NVLXI_KIND_VMM = 2,         /* a chunk of virtual-memory management, by a file descriptor */
    NVLXI_KIND_POOL = 3,        /* of a stream-ordered pool, by the pool's file descriptor and a handle */
    NVLXI_KIND_FABRIC = 4,      /* a chunk of virtual-memory management, by a fabric handle */
    NVLXI_KIND_HOST = 5,        /* a chunk of host memory, by a file descriptor */
    NVLXI_KIND_PINNED = 6       /* pinned host memory: not at all. It is in no descriptor */
};

/* Whether memory of a kind is the host's, and not a GPU's. */
static inline bool nvlxi_kind_is_host(uint32_t kind) {
    return kind == NVLXI_KIND_HOST || kind == NVLXI_KIND_PINNED;
}

/* Where memory of a kind is, as one number: on a GPU, or in host memory, which a GPU copies. The GPU is given by its
 * index. */
static inline uint16_t nvlxi_place(uint32_t device, uint32_t kind) {
    return (uint16_t)(4 * device + 2 * (kind == NVLXI_KIND_HOST) + nvlxi_kind_is_host(kind));
}

static inline uint16_t nvlxi_place_device(uint16_t place) {
    return place / 4;
}

static inline bool nvlxi_place_is_host(uint16_t place) {
    return place % 2;
}

/* Whether it is host memory that only that GPU may use: a chunk. Pinned memory is for all. */
static inline bool nvlxi_place_is_bound(uint16_t place) {
    return place & 2;
}

/* Who exported a descriptor. Two processes are the same if the first four are equal: a pid alone is reused, and is
 * ambiguous between namespaces. */
struct nvlxi_identity {
    char boot_id[40];                 /* of the machine's kernel */
    uint64_t pid;                     /* as the process itself sees it */
    uint64_t pid_namespace;           /* inode of its pid namespace */
    uint64_t start_time;              /* clock ticks after boot */
    char engine[NVLXI_ENGINE_ID + 1]; /* 32 hex digits, random for each engine */
    uint64_t generation;              /* grows with every change of the engine's registrations */
};

struct nvlxi_handle {
    uint32_t length; /* bytes used */
    uint8_t bytes[NVLXI_HANDLE_BYTES];
};

struct nvlxi_segment_record {
    uint32_t kind;                    /* enum nvlxi_kind */
    char kind_name[24];               /* as on the wire, shortened to fit: for messages */
    uint8_t device[NVLXI_UUID_BYTES]; /* UUID of the GPU that holds it, or of host memory the one that is near */
    uint64_t serial;                  /* the driver's buffer id in the exporting process: never reused there */
    uint64_t base, size;              /* in the exporter's address space */
    bool file;                        /* opening it takes a file descriptor, which the owner gives out */
    bool joins;                       /* a region may go on into the next segment, if that joins too and is adjacent */
    struct nvlxi_handle handle;       /* length 0 where the file descriptor is all it takes */
};

struct nvlxi_region_record {
    const char *name; /* "" if it has none */
    uint32_t segment; /* index into the segments of the one that it begins in, or NVLXI_NO_SEGMENT */
    uint32_t access;  /* NVLX_ACCESS_... */
    uint64_t address; /* in the exporter's address space; 0 without a segment */
    uint64_t length;
    uint32_t segment_count; /* it lies in 1, or in more adjacent ones, from `segment` on; 0 without a segment */
    uint64_t since;         /* the owner's generation that it came with; 0: not known */
    uint64_t digest;        /* of its bytes, if the owner has told it: */
    bool has_digest;
    bool suspended; /* it sleeps: it has an address and a length, and no segment */
};

/* One contiguous copy: what a plan is made of, and what the copy kernels read. */
struct nvlxi_fragment {
    uint64_t destination, source; /* addresses in this process, mapped ones included */
    uint64_t length;
};

/* Equal fragments at equal distances on both sides: one 2D copy. The rows of a source may overlap. */
struct nvlxi_rows {
    uint64_t destination, source;             /* of the first row */
    uint64_t length;                          /* of a row, > 0 */
    uint64_t count;                           /* of rows, > 0 */
    uint64_t destination_pitch, source_pitch; /* from one row to the next */
};

/* Equal rows at equal distances on both sides, such as those of blocks in layers: one 3D copy. */
struct nvlxi_grid {
    struct nvlxi_rows rows;                 /* the first ones */
    uint64_t times;                         /* > 0 */
    uint64_t destination_step, source_step; /* from one time to the next; nothing if there is one */
};

/* A signal: what becomes of a count, of 64 bits, in device memory. */
struct nvlxi_signal {
    uint64_t address; /* a multiple of 8, in this process: mapped or own */
    uint64_t value;
    bool add; /* the count grows by the value; else it becomes the value */
};

/* What one copy by an engine may be. The pitch is cudaDevAttrMaxPitch. So many rows and times were measured. */
#define NVLXI_PITCH_MAX    ((UINT64_C(1) << 31) - 1)
#define NVLXI_ROWS_MAX     (UINT64_C(1) << 20)
#define NVLXI_TIMES_MAX    (UINT64_C(1) << 12)
#define NVLXI_DISTANCE_MAX (UINT64_C(1) << 16) /* pitches from one time to the next */

/* From the first byte of the first row to the last byte of the last one. */
static inline uint64_t nvlxi_rows_span(const struct nvlxi_rows *rows, uint64_t pitch) {
    return (rows->count - 1) * pitch + rows->length;
}

/* Whether one copy by an engine can do all times of so many rows: steps are whole numbers of pitches, and each time
 * begins behind the rows of the one before (cuMemcpy3D: the height of a side is at least that of what is copied). */
static inline bool nvlxi_grid_is_even(uint64_t count, uint64_t pitch, uint64_t step) {
    return pitch && step % pitch == 0 && step / pitch >= count && step / pitch <= NVLXI_DISTANCE_MAX;
}

#endif
