/* Small helpers that every file may use. Layer 0: includes nothing of ours.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_BASE_H
#define NVLXI_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define NVLXI_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define nvlxi_container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#define nvlxi_likely(x)   __builtin_expect(!!(x), 1)
#define nvlxi_unlikely(x) __builtin_expect(!!(x), 0)

/* *sum = a + b; false if that does not fit, and *sum is then undefined. */
static inline bool nvlxi_add(uint64_t a, uint64_t b, uint64_t *sum) {
    return !__builtin_add_overflow(a, b, sum);
}

static inline uint64_t nvlxi_min(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static inline uint64_t nvlxi_max(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static inline uint64_t nvlxi_ceil_div(uint64_t a, uint64_t b) {
    return (a + b - 1) / b;
}

/* *rounded = the next multiple of `unit` > 0; false if that does not fit, and *rounded is then undefined. */
static inline bool nvlxi_round_up(uint64_t value, uint64_t unit, uint64_t *rounded) {
    if (!nvlxi_add(value, unit - 1, rounded))
        return false;
    *rounded = *rounded / unit * unit;
    return true;
}

/* Monotonic time in nanoseconds. */
static inline uint64_t nvlxi_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The moment `timeout_ns` from now; < 0 and what does not fit mean never. */
static inline uint64_t nvlxi_deadline(int64_t timeout_ns) {
    uint64_t deadline;
    if (timeout_ns < 0 || !nvlxi_add(nvlxi_now_ns(), (uint64_t)timeout_ns, &deadline))
        return UINT64_MAX;
    return deadline;
}

/* What is left until the moment `deadline`, as poll takes it: milliseconds, rounded up, a minute at most; -1 if that is
 * never. */
static inline int nvlxi_poll_ms(uint64_t deadline) {
    const uint64_t now = nvlxi_now_ns();
    if (deadline == UINT64_MAX)
        return -1;
    return deadline > now ? (int)nvlxi_min(nvlxi_ceil_div(deadline - now, 1000000), 60000) : 0;
}

#endif
