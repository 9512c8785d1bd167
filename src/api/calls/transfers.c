/* The exported functions of transfers, prepared lists and requests.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "api/abi.h"
#include "api/engine.h"
#include "api/messages.h"
#include "base/error.h"

/* ---- Transfers --------------------------------------------------------------------------------------- */

/* What nvlx_transfer and nvlx_prepare have in common. */
static int take_transfer(const struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                         const struct nvlx_transfer_options *options, struct nvlx_transfer_options *known) {
    nvlx_transfer_options_init(known);
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_struct_take(known, sizeof *known, options, "nvlx_transfer_options")))
        return code;
    if (count && (code = nvlxi_pointer_check(ops, "ops")))
        return code;
    if (known->flags & ~(uint32_t)(NVLX_NO_MAP | NVLX_VERIFY | NVLX_DONE_EVENT))
        return nvlxi_fail(NVLX_EINVAL, "transfer flags 0x%" PRIx32 " are not known", known->flags);
    if (known->message_length && !known->message)
        return nvlxi_fail(NVLX_EINVAL, "message is NULL and message_length is %zu", known->message_length);
    return nvlxi_mechanism_check(known->mechanism);
}

static int transfer(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                    const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    struct nvlx_transfer_options known;
    struct nvlx_peer *peer = NULL;
    struct nvlx_request *made;
    struct nvlxi_asked asked;
    int code = take_transfer(engine, ops, count, options, &known);
    if (code || (code = nvlxi_request_check(request, &known)))
        return code;
    if (known.message && (code = nvlxi_message_peer(ops, count, &peer)))
        return code;
    if ((code = nvlxi_asked_make(&known, peer, request, &asked)))
        return code;
    code = nvlxi_transfer_submit(&engine->transfers, ops, count, &known, &asked, &made);
    if (code)
        nvlxi_asked_undo(&asked);
    else if (request)
        *request = made;
    return code;
}

int nvlx_transfer(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, nvlxi_engine_note(engine, transfer(engine, ops, count, options, request)));
}

static int fail_verified_list(void) {
    return nvlxi_fail(NVLX_ENOTSUP,
                      "NVLX_VERIFY is for nvlx_transfer: lists that were prepared are not verified, neither by "
                      "nvlx_prepare nor by nvlx_post");
}

static int prepare(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                   const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared) {
    struct nvlx_transfer_options known;
    int code = take_transfer(engine, ops, count, options, &known);
    if (code || (code = nvlxi_pointer_check(prepared, "prepared")))
        return code;
    if (known.stream || known.message || known.user || (known.flags & NVLX_DONE_EVENT))
        return nvlxi_fail(
            NVLX_EINVAL, "a stream, a message, NVLX_DONE_EVENT and user are options of nvlx_post, not of nvlx_prepare");
    if (known.flags & NVLX_VERIFY)
        return fail_verified_list();
    return nvlxi_prepare(&engine->transfers, ops, count, &known, prepared);
}

int nvlx_prepare(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                 const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, nvlxi_engine_note(engine, prepare(engine, ops, count, options, prepared)));
}

static int check_prepared(const struct nvlx_prepared *prepared) {
    int code = nvlxi_pointer_check(prepared, "prepared");
    return code ? code : nvlxi_engine_check(prepared->engine);
}

static int post_asked(struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
                      struct nvlx_request **request) {
    struct nvlx_request *made;
    struct nvlxi_asked asked;
    if (options->message_length && !options->message)
        return nvlxi_fail(NVLX_EINVAL, "message is NULL and message_length is %zu", options->message_length);
    if (options->message && prepared->peer_count != 1)
        return nvlxi_fail(NVLX_EINVAL, "a message goes to one peer: the prepared list moves bytes of %zu",
                          prepared->peer_count);
    int code = nvlxi_asked_make(options, options->message ? prepared->peer : NULL, request, &asked);
    if (code)
        return code;
    const struct nvlxi_posting posting = {.stream = options->stream};
    code = nvlxi_post(prepared, &posting, &asked, &made);
    if (code)
        nvlxi_asked_undo(&asked);
    else if (request)
        *request = made;
    return code;
}

static int post(struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
                struct nvlx_request **request) {
    struct nvlx_transfer_options known;
    nvlx_transfer_options_init(&known);
    int code = check_prepared(prepared);
    if (code || (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_transfer_options")) ||
        (code = nvlxi_request_check(request, &known)))
        return code;
    if (known.flags & NVLX_VERIFY)
        return fail_verified_list();
    if (known.flags & ~(uint32_t)NVLX_DONE_EVENT || known.mechanism || known.max_sms || known.priority ||
        known.generation)
        return nvlxi_fail(NVLX_EINVAL, "flags, mechanism, max_sms, priority and generation are options of "
                                       "nvlx_prepare, not of nvlx_post");
    return post_asked(prepared, &known, request);
}

int nvlx_post(struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
              struct nvlx_request **request) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    struct nvlx_engine *engine = prepared ? prepared->engine : NULL;
    return nvlxi_attempt_end(&call, nvlxi_engine_note(engine, post(prepared, options, request)));
}

static int free_prepared(struct nvlx_prepared *prepared) {
    if (!prepared)
        return 0;
    int code = check_prepared(prepared);
    if (!code)
        nvlxi_prepared_free(prepared);
    return code;
}

int nvlx_prepared_free(struct nvlx_prepared *prepared) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, free_prepared(prepared));
}

static int check_request(const struct nvlx_request *request) {
    int code = nvlxi_pointer_check(request, "request");
    return code ? code : nvlxi_engine_check(request->engine);
}

int nvlx_test(struct nvlx_request *request) {
    int code = check_request(request);
    return code ? code : nvlxi_request_test(request);
}

int nvlx_wait(struct nvlx_request *request, int64_t timeout_ns) {
    int code = check_request(request);
    return code ? code : nvlxi_request_wait(request, timeout_ns);
}

static int request_info(struct nvlx_request *request, struct nvlx_request_info *info) {
    struct nvlx_request_info made = {0};
    int code = check_request(request);
    if (code)
        return code;
    nvlxi_request_info(request, &made);
    const struct nvlxi_array error = {offsetof(struct nvlx_request_info, error), sizeof made};
    return nvlxi_struct_give(info, &made, sizeof made, error, "nvlx_request_info");
}

int nvlx_request_get_info(struct nvlx_request *request, struct nvlx_request_info *info) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, request_info(request, info));
}

int nvlx_request_free(struct nvlx_request *request) {
    if (!request)
        return 0;
    int code = check_request(request);
    return code ? code : nvlxi_request_free(request);
}
