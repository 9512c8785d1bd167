/* nvlx_ping: counts what goes over a GPU's links. SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/driver.h"
#include "common/nvml.h"
#include "ping/ping.h"

#define PATIENCE_MS 10000

static void put(int to, const void *bytes, size_t length) {
    if (write(to, bytes, length) != (ssize_t)length)
        _exit(1);
}

/* The process that counts: a GPU of CUDA is found by its UUID, once. It answers each byte until there are no more. */
static void count(int gpu, int from, int to) {
    static struct driver driver;
    static struct nvml nvml;
    char question;
    signal(SIGPIPE, SIG_DFL);
    driver_look(&driver);
    nvml_look(&nvml);
    const char *uuid = gpu < driver.count ? driver.gpus[gpu].uuid : "";
    while (read(from, &question, 1) == 1) {
        struct links_count now = {.told = false};
        now.told = *uuid && nvml_traffic(&nvml, uuid, &now.received, &now.sent);
        put(to, &now, sizeof now);
    }
    _exit(0);
}

void links_start(struct links *links, int gpu) {
    int questions[2], answers[2];
    *links = (struct links){.to = -1, .from = -1, .patience_ms = PATIENCE_MS};
    if (pipe(questions))
        return;
    if (pipe(answers)) {
        close(questions[0]);
        close(questions[1]);
        return;
    }
    links->child = fork();
    if (links->child == 0) {
        close(questions[1]);
        close(answers[0]);
        count(gpu, questions[0], answers[1]);
    }
    close(questions[0]);
    close(answers[1]);
    links->to = questions[1];
    links->from = answers[0];
    signal(SIGPIPE, SIG_IGN); /* it may have crashed */
}

/* Whoever has not answered once is not asked again: its answer would be taken for that of a later question. */
void links_read(struct links *links, struct links_count *count) {
    struct pollfd poller = {.fd = links->from, .events = POLLIN};
    count->told = false;
    if (links->to < 0)
        return;
    if (write(links->to, "?", 1) == 1 && poll(&poller, 1, links->patience_ms) == 1 &&
        read(links->from, count, sizeof *count) == (ssize_t)sizeof *count)
        return;
    count->told = false;
    links_end(links);
}

/* It is not waited for: a driver may keep it for long. It is gone with this process. */
void links_end(struct links *links) {
    if (links->to < 0)
        return;
    if (links->child > 0)
        kill(links->child, SIGKILL);
    close(links->to);
    close(links->from);
    links->to = links->from = -1;
}
