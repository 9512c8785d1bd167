/* nvlx_ping's process that counts: what it tells late is not taken for a later answer, and it does not stay behind.
 * SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmocka_main.h"
#include "ping/ping.h"

/* A child that answers question 1 after question 2 has come, then with what it counted for question 1. */
static void answer_late(int from, int to) {
    const struct links_count count = {.told = true, .received = 1, .sent = 1};
    char question;
    for (int i = 0; i < 2; i++)
        if (read(from, &question, 1) != 1)
            _exit(1);
    if (write(to, &count, sizeof count) != (ssize_t)sizeof count)
        _exit(1);
    alarm(10); /* where it is not killed */
    pause();
    _exit(1);
}

static void start(struct links *links) {
    int questions[2], answers[2];
    assert_int_equal(pipe(questions), 0);
    assert_int_equal(pipe(answers), 0);
    *links = (struct links){.to = questions[1], .from = answers[0], .patience_ms = 50};
    links->child = fork();
    assert_true(links->child >= 0);
    if (links->child == 0)
        answer_late(questions[0], answers[1]);
    close(questions[0]);
    close(answers[1]);
    signal(SIGPIPE, SIG_IGN);
}

static void a_late_answer_is_no_later_one(void **state) {
    struct links links;
    struct links_count count;
    (void)state;
    start(&links);
    links_read(&links, &count);
    assert_false(count.told);
    links.patience_ms = 2000;
    links_read(&links, &count);
    assert_false(count.told);
    links_end(&links);
}

static void no_process_stays_behind(void **state) {
    struct links links;
    int status;
    (void)state;
    start(&links);
    const pid_t child = links.child;
    links_end(&links);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static const struct CMUnitTest cases[] = {
    cmocka_unit_test(a_late_answer_is_no_later_one),
    cmocka_unit_test(no_process_stays_behind),
};

const struct program program = {.name = "ping links", .cases = cases, .count = COUNT(cases)};
