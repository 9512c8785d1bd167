/* The doctor: asks the driver, and waits for processes of its own. SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor/doctor.h"

bool child_await(pid_t child, int from, void *bytes, size_t length, char *died, size_t size) {
    struct pollfd poller = {.fd = from, .events = POLLIN};
    int status = 0, ready;
    do
        ready = poll(&poller, 1, PATIENCE_MS);
    while (ready < 0 && errno == EINTR);
    const ssize_t got = ready > 0 ? read(from, bytes, length) : 0;
    kill(-child, SIGKILL);
    waitpid(child, &status, 0);
    if (ready == 0)
        snprintf(died, size, "it did not end within %d s", PATIENCE_MS / 1000);
    else if (WIFSIGNALED(status))
        snprintf(died, size, "it was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(died, size, "it ended without an answer");
    return got == (ssize_t)length;
}

int child_run(void (*work)(void *), void *context, char *died, size_t size) {
    const char whole = 1;
    char told;
    int ends[2], code = 0;
    if (pipe(ends))
        return -1;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        setpgid(0, 0); /* so that all that it starts can be ended with it */
        work(context);
        _exit(write(ends[1], &whole, sizeof whole) == (ssize_t)sizeof whole ? 0 : 1);
    }
    close(ends[1]);
    if (child > 0) {
        setpgid(child, child);
        code = child_await(child, ends[0], &told, sizeof told, died, size) ? 0 : 1;
    }
    close(ends[0]);
    return child < 0 ? -1 : code;
}

static void ask(void *context) {
    struct facts *facts = context;
    driver_look(&facts->driver);
    nvml_look(&facts->nvml);
    facts->whole = true;
}

const struct facts *facts_ask(void) {
    struct facts *facts = mmap(NULL, sizeof *facts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (facts == MAP_FAILED)
        return NULL;
    const int code = child_run(ask, facts, facts->died, sizeof facts->died);
    if (code > 0) {
        facts->whole = false;
        memset(&facts->driver, 0, sizeof facts->driver);
    }
    if (code >= 0)
        return facts;
    munmap(facts, sizeof *facts);
    return NULL;
}
