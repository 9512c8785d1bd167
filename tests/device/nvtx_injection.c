/* A profiler that is none: NVTX loads it into a test (NVTX_INJECTION64_PATH), and it counts ranges.
 * SPDX-License-Identifier: Apache-2.0 */
#include "device/nvtx_injection.h"

#include <nvtx3/nvToolsExt.h>

#include <pthread.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct injected_range ranges[INJECTED_MAX];
static size_t count, depth;
static size_t open_ranges[INJECTED_MAX]; /* of all threads: the test has one that calls */
static int domain_made;

static size_t add(const nvtxEventAttributes_t *event) {
    const size_t index = count < INJECTED_MAX ? count++ : INJECTED_MAX - 1;
    ranges[index] = (struct injected_range){.size = event->payload.ullValue, .pushed = pthread_self()};
    strncpy(ranges[index].name, event->message.ascii, sizeof ranges[index].name - 1);
    return index;
}

static nvtxDomainHandle_t NVTX_API create(const char *name) {
    domain_made += strcmp(name, "nvlxfer") == 0;
    return (nvtxDomainHandle_t)&domain_made;
}

static int NVTX_API push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *event) {
    (void)domain;
    pthread_mutex_lock(&mutex);
    open_ranges[depth++] = add(event);
    pthread_mutex_unlock(&mutex);
    return 0;
}

/* The innermost one of this thread. */
static int NVTX_API pop(nvtxDomainHandle_t domain) {
    (void)domain;
    pthread_mutex_lock(&mutex);
    size_t at = depth;
    while (at > 0 && !pthread_equal(ranges[open_ranges[at - 1]].pushed, pthread_self()))
        at--;
    if (at > 0) {
        ranges[open_ranges[at - 1]].ended++;
        memmove(&open_ranges[at - 1], &open_ranges[at], (depth - at) * sizeof *open_ranges);
        depth--;
    }
    pthread_mutex_unlock(&mutex);
    return 0;
}

static nvtxRangeId_t NVTX_API start(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *event) {
    (void)domain;
    pthread_mutex_lock(&mutex);
    const size_t index = add(event);
    pthread_mutex_unlock(&mutex);
    return index + 1;
}

static void NVTX_API end(nvtxDomainHandle_t domain, nvtxRangeId_t range) {
    (void)domain;
    pthread_mutex_lock(&mutex);
    ranges[range - 1].ended++;
    pthread_mutex_unlock(&mutex);
}

size_t injected_ranges(struct injected_range *seen, size_t room) {
    pthread_mutex_lock(&mutex);
    const size_t all = domain_made == 1 ? count : 0;
    memcpy(seen, ranges, (all < room ? all : room) * sizeof *seen);
    pthread_mutex_unlock(&mutex);
    return all;
}

static void set(NvtxFunctionTable table, unsigned size, unsigned id, NvtxFunctionPointer function) {
    if (id < size && table[id])
        *table[id] = function;
}

/* The name is NVTX's. */
int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table);
int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table) {
    const NvtxExportTableCallbacks *callbacks = get_table(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable table;
    unsigned size;
    if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size))
        return 0;
    set(table, size, NVTX_CBID_CORE2_DomainCreateA, (NvtxFunctionPointer)create);
    set(table, size, NVTX_CBID_CORE2_DomainRangePushEx, (NvtxFunctionPointer)push);
    set(table, size, NVTX_CBID_CORE2_DomainRangePop, (NvtxFunctionPointer)pop);
    set(table, size, NVTX_CBID_CORE2_DomainRangeStartEx, (NvtxFunctionPointer)start);
    set(table, size, NVTX_CBID_CORE2_DomainRangeEnd, (NvtxFunctionPointer)end);
    return 1;
}
