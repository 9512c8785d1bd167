/* A follower that never knew bytes does not hold them: nobody waits for it. Here it is stopped, so that it never
 * answers. SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "lifetime/revocation.h"
#include "rendezvous_support.h"
#include "sleep_support.h"
#include "support.h"

#define PATH     108 /* bytes of an address */
#define TOLD_US  30000
#define SHORT_NS (20 * INT64_C(1000000))

static void follower_role(int socket) {
    struct nvlx_engine *engine = make_engine(0);
    char path[PATH], end;
    get(socket, path, sizeof path);
    connect_to(engine, path);
    put(socket, "c", 1);
    get_or_end(socket, &end, 1);
    OK(nvlx_engine_destroy(engine));
}

/* It knows all that there is by now, and is stopped. */
static void start_follower(struct child *follower) {
    char path[PATH] = "";
    strncpy(path, own_path(), sizeof path - 1);
    child_start(follower, "follower");
    put(follower->socket, path, sizeof path);
    await_child(follower);
    child_stop(follower);
}

static void end_follower(struct child *follower) {
    EQUAL(0, kill(follower->pid, SIGCONT));
    child_end(follower);
}

static void publish_to_all(void) {
    OK(nvlx_publish(owner, NULL));
    usleep(TOLD_US);
}

static struct nvlx_region *add(void) {
    return register_range(owner, rest, 4096, "late", NVLX_ACCESS_READ);
}

/* It comes, and the follower is not told. */
static struct nvlx_region *come_unseen(struct child *follower) {
    begin();
    start_follower(follower);
    OK(nvlx_hold(owner));
    return add();
}

/* The follower came while it slept, and is not told that it wakes. */
static struct nvlx_region *wake_unseen(struct child *follower) {
    begin();
    struct nvlx_region *late = add();
    OK(nvlx_suspend(&late, 1, PATIENCE));
    start_follower(follower);
    OK(nvlx_hold(owner));
    OK(nvlx_resume(&late, 1, NULL));
    return late;
}

static void go(struct child *follower, struct nvlx_region *late) {
    REFUSED(nvlx_unregister(late, 0), NVLX_ETIMEDOUT, "nvlx_publish");
    publish_to_all();
    OK(nvlx_unregister(late, SHORT_NS));
    end_follower(follower);
    end();
}

static void fall_asleep(struct child *follower, struct nvlx_region *late) {
    REFUSED(nvlx_suspend(&late, 1, 0), NVLX_ETIMEDOUT, "nvlx_publish");
    publish_to_all();
    OK(nvlx_suspend(&late, 1, SHORT_NS));
    OK(nvlx_unregister(late, 0));
    end_follower(follower);
    end();
}

static void what_came_and_went(void) {
    struct child follower;
    go(&follower, come_unseen(&follower));
}

static void what_came_asleep(void) {
    struct child follower;
    fall_asleep(&follower, come_unseen(&follower));
}

/* The same, asked again by nvlx_unregister. */
static void what_came_asleep_and_went(void) {
    struct child follower;
    struct nvlx_region *late = come_unseen(&follower);
    REFUSED(nvlx_suspend(&late, 1, 0), NVLX_ETIMEDOUT, "nvlx_publish");
    publish_to_all();
    OK(nvlx_unregister(late, SHORT_NS));
    end_follower(&follower);
    end();
}

static void what_woke_and_went(void) {
    struct child follower;
    go(&follower, wake_unseen(&follower));
}

static void what_woke_and_slept(void) {
    struct child follower;
    fall_asleep(&follower, wake_unseen(&follower));
}

/* Memory was freed before who follows came, and its region is unregistered after. */
static void what_was_freed(void) {
    struct child follower;
    begin();
    char *memory_of_it = allocate(owner, 0, 4096, 1);
    struct nvlx_region *freed = register_range(owner, memory_of_it, 4096, "freed", NVLX_ACCESS_READ);
    OK(nvlx_free(owner, memory_of_it));
    start_follower(&follower);
    OK(nvlx_unregister(freed, SHORT_NS));
    end_follower(&follower);
    end();
}

/* Each of a list is waited for by itself: the follower knew one, and has let go of it; and slept through the other. */
static void one_of_a_list(void) {
    struct child holder, follower;
    begin();
    start_follower(&holder);
    REFUSED(nvlx_suspend(&weights, 1, 0), NVLX_ETIMEDOUT, "process");
    start_follower(&follower); /* which never knew the weights awake */
    OK(nvlx_hold(owner));
    struct nvlx_region *late = add(), *both[] = {weights, late};
    REFUSED(nvlx_suspend(both, 2, 0), NVLX_ETIMEDOUT, "nvlx_publish");
    publish_to_all();
    end_follower(&holder);
    OK(nvlx_suspend(both, 2, PATIENCE));
    end_follower(&follower);
    end();
}

/* And what one did know is waited for. */
static void what_was_known(void) {
    struct nvlxi_revocations revocations;
    struct nvlxi_follower follower = {.pid = 1};
    const struct nvlxi_withdrawn known[] = {
        {.what = "it", .since = 5, .without = 9}, {"it", 4, 7}, {"it", 2, 6}, {"it", 9, 12}, {"it", 5, 10}};
    const struct nvlxi_withdrawn unknown[] = {{"it", 6, 9}, {"it", 6, 7}, {"it", 8, 9}, {"it", 10, 12}, {"it", 2, 5}};
    nvlxi_revocations_init(&revocations);
    EXPECT(nvlxi_follower_tell(&revocations, &follower, 5));
    EXPECT(nvlxi_follower_tell(&revocations, &follower, 9));
    for (size_t i = 0; i < COUNT(unknown); i++)
        OK(nvlxi_revocations_wait(&revocations, &unknown[i], 0));
    for (size_t i = 0; i < COUNT(known); i++)
        GIVES(NVLX_ETIMEDOUT, nvlxi_revocations_wait(&revocations, &known[i], 0));
    for (uint64_t generation = 12; generation < 2000; generation += 2) /* more than it remembers: who knows */
        EXPECT(nvlxi_follower_tell(&revocations, &follower, generation));
    for (size_t i = 0; i < COUNT(known); i++)
        GIVES(NVLX_ETIMEDOUT, nvlxi_revocations_wait(&revocations, &known[i], 0));
    OK(nvlxi_revocations_wait(&revocations, &(struct nvlxi_withdrawn){"it", 1997, 1998}, 0));
    GIVES(NVLX_ETIMEDOUT, nvlxi_revocations_wait(&revocations, &(struct nvlxi_withdrawn){"it", 1996, 1998}, 0));
    nvlxi_follower_gone(&revocations, &follower);
    nvlxi_revocations_free(&revocations);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"what_came_and_went", what_came_and_went},
                                        {"what_came_asleep", what_came_asleep},
                                        {"what_came_asleep_and_went", what_came_asleep_and_went},
                                        {"what_woke_and_went", what_woke_and_went},
                                        {"what_woke_and_slept", what_woke_and_slept},
                                        {"what_was_freed", what_was_freed},
                                        {"one_of_a_list", one_of_a_list},
                                        {"what_was_known", what_was_known},
                                        {NULL, NULL}};
    static const struct role roles[] = {{"follower", follower_role}, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
