/* Makes what followers are told, when it is time. SPDX-License-Identifier: Apache-2.0 */
#include "rendezvous/news.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/error.h"

#define REST_NS       UINT64_C(2000000)   /* between two looks, or between two whole texts, or if that is more: */
#define REST          2                   /* times what it took to make changes */
#define WHOLE_REST    10                  /* times what it took to make a whole text */
#define WHOLE_RETRY   UINT64_C(100000000) /* after one that could not be made; doubled each time, up to ... */
#define WHOLE_RETRIES UINT64_C(1000000000)

void nvlxi_news_init(struct nvlxi_news *news, struct nvlxi_publisher *publisher,
                     struct nvlxi_revocations *revocations) {
    news->publisher = publisher;
    news->revocations = revocations;
    news->whole_outdated = true;
    atomic_init(&news->outdated, true);
}

void nvlxi_text_drop(struct nvlxi_text *text) {
    if (!text || --text->users)
        return;
    free(text->bytes);
    free(text);
}

static void replace(struct nvlxi_text **place, struct nvlxi_text *text) {
    nvlxi_text_drop(*place);
    *place = text;
}

void nvlxi_news_free(struct nvlxi_news *news) {
    replace(&news->whole, NULL);
    replace(&news->changes, NULL);
}

bool nvlxi_news_changed(struct nvlxi_news *news) {
    return !atomic_exchange(&news->outdated, true);
}

/* ---- Texts --------------------------------------------------------------------------------------------- */

/* The whole, or what has changed since a generation. *made becomes NULL if that is nothing. NVLX_EAGAIN, not logged: it
 * takes the whole. */
static int make_text(const struct nvlxi_news *news, uint64_t from, bool alters, struct nvlxi_text **made) {
    struct nvlxi_text *text = calloc(1, sizeof *text);
    *made = NULL;
    if (!text)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a descriptor to send");
    text->begun = nvlxi_now_ns();
    text->from = from;
    text->alters = alters;
    text->users = 1;
    int code = from ? nvlxi_publisher_changes(news->publisher, from, &text->alters, &text->bytes, &text->length,
                                              &text->generation)
                    : nvlxi_publisher_text(news->publisher, &text->bytes, &text->length, &text->generation);
    if (!code && from && text->length > NVLXI_PROTOCOL_CHANGES_MAX)
        code = NVLX_EAGAIN;
    if (!code && text->bytes)
        *made = text;
    else
        nvlxi_text_drop(text);
    return code;
}

static void note_failure(struct nvlxi_news *news, int code, uint64_t begin) {
    news->retry = news->failure ? nvlxi_min(2 * news->retry, WHOLE_RETRIES) : WHOLE_RETRY;
    news->failing = news->failure ? news->failing : begin;
    news->failure = code;
    news->failed = begin;
    snprintf(news->reason, sizeof news->reason, "%s", nvlx_last_error());
    news->whole_due = begin + news->retry;
}

static bool is_held(const struct nvlxi_news *news) {
    return atomic_load(&news->publisher->registration->held);
}

static void make_whole(struct nvlxi_news *news, uint64_t begin) {
    struct nvlxi_text *made;
    int code = make_text(news, 0, false, &made);
    if (code && is_held(news)) {
        atomic_store(&news->outdated, true);
    } else if (code) {
        note_failure(news, code, begin);
    } else if (made) { /* as a whole text is */
        replace(&news->whole, made);
        news->newest = nvlxi_max(news->newest, made->generation);
        news->whole_outdated = false;
        news->failure = 0;
        news->whole_due = begin + nvlxi_max(REST_NS, WHOLE_REST * (nvlxi_now_ns() - begin));
    }
}

/* ---- Looking ------------------------------------------------------------------------------------------- */

/* Whether somebody waits for more than a generation, that can be told. */
static bool is_wanted(const struct nvlxi_news *news, uint64_t generation) {
    return nvlxi_revocations_wanted(news->revocations) > generation && !is_held(news);
}

/* When a whole text may be made. */
static uint64_t whole_due(const struct nvlxi_news *news) {
    return news->whole && !news->failure && is_wanted(news, news->whole->generation) ? 0 : news->whole_due;
}

uint64_t nvlxi_news_due(const struct nvlxi_news *news, const struct nvlxi_readers *readers) {
    const uint64_t whole =
        readers->whole && (news->whole_outdated || atomic_load(&news->outdated)) ? whole_due(news) : UINT64_MAX;
    const uint64_t changes = readers->changes && atomic_load(&news->outdated) ? 0 : UINT64_MAX;
    const uint64_t first = nvlxi_min(whole, changes);
    const uint64_t due = news->newest && is_wanted(news, news->newest) ? 0 : news->due;
    return first == UINT64_MAX ? first : nvlxi_max(first, due);
}

void nvlxi_news_refresh(struct nvlxi_news *news, const struct nvlxi_readers *readers) {
    const uint64_t begin = nvlxi_now_ns();
    if (begin < nvlxi_news_due(news, readers))
        return;
    news->due = begin + nvlxi_max(REST_NS, REST * news->spent);
    news->spent = 0;
    if (is_held(news)) /* looks again a little later */
        return;
    if (atomic_exchange(&news->outdated, false)) {
        news->whole_outdated = true;
        news->newest = nvlxi_max(news->newest, nvlxi_registration_generation(news->publisher->registration));
    }
    news->looked = begin;
    if (news->whole_outdated && !readers->whole)
        replace(&news->whole, NULL);
    else if (news->whole_outdated && begin >= whole_due(news))
        make_whole(news, begin);
}

bool nvlxi_news_whole_is_newest(const struct nvlxi_news *news) {
    return !news->whole_outdated && !atomic_load(&news->outdated);
}

bool nvlxi_news_has_all_before(const struct nvlxi_news *news, uint64_t moment) {
    return news->looked > moment || !atomic_load(&news->outdated);
}

struct nvlxi_text *nvlxi_news_since(struct nvlxi_news *news, uint64_t generation, bool alters, bool *whole) {
    const struct nvlxi_text *known = news->changes;
    struct nvlxi_text *made;
    if (known && known->from == generation && known->generation >= news->newest && (alters || !known->alters))
        return news->changes;
    const uint64_t begin = nvlxi_now_ns();
    int code = make_text(news, generation, alters, &made);
    news->spent += nvlxi_now_ns() - begin;
    *whole = code && !is_held(news);
    if (code || !made)
        return NULL;
    replace(&news->changes, made);
    news->newest = nvlxi_max(news->newest, made->generation);
    return made;
}
