/* Which waits of streams have failed: see waits.h. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/log.h"
#include "lifetime/waits.h"

void nvlxi_failed_note(struct nvlxi_failed_waits **list, uint64_t number, int code, const char *reason) {
    struct nvlxi_failed_waits *newest = *list;
    if (newest && newest->first + newest->count == number && newest->code == code &&
        strcmp(newest->reason, reason) == 0) {
        newest->count++;
        return;
    }
    struct nvlxi_failed_waits *made = malloc(sizeof *made);
    if (!made) {
        nvlxi_log(NVLX_LOG_ERROR, "a wait has failed, and there is no memory to note it: %s", reason);
        return;
    }
    *made = (struct nvlxi_failed_waits){.first = number, .count = 1, .code = code};
    snprintf(made->reason, sizeof made->reason, "%s", reason);
    LL_PREPEND(*list, made);
}

const struct nvlxi_failed_waits *nvlxi_failed_find(const struct nvlxi_failed_waits *list, uint64_t number) {
    const struct nvlxi_failed_waits *failed;
    LL_FOREACH(list, failed) {
        if (number - failed->first < failed->count)
            break;
    }
    return failed;
}

void nvlxi_failed_free(struct nvlxi_failed_waits *list) {
    struct nvlxi_failed_waits *failed, *next;
    LL_FOREACH_SAFE(list, failed, next) {
        free(failed);
    }
}

int nvlxi_waits_outcome(struct nvlxi_waits *waits, uint64_t number) {
    char reason[NVLXI_REASON_BYTES] = "";
    int code = 0;
    pthread_mutex_lock(&waits->mutex);
    const struct nvlxi_failed_waits *failed = nvlxi_failed_find(waits->failed, number);
    const struct nvlxi_wait *wait = nvlxi_waits_find(waits, number);
    if (failed)
        code = failed->code;
    else if (wait && wait->marked)
        code = wait->failure;
    if (code)
        snprintf(reason, sizeof reason, "%s", failed ? failed->reason : wait->reason);
    pthread_mutex_unlock(&waits->mutex);
    return code ? nvlxi_fail_again(code, reason) : 0;
}
