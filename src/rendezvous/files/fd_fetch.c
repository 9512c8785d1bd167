/* Fetches the file descriptors of a peer's segments from where the peer serves. SPDX-License-Identifier: Apache-2.0 */
#include "rendezvous/files/fd_fetch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"
#include "rendezvous/files/channel.h"

#define PATIENCE_NS INT64_C(10000000000)

struct fetch {
    struct nvlxi_source source;
    struct nvlxi_connection connection;
    int64_t patience_ns;
    size_t asked, received;              /* of `wanted` */
    struct nvlxi_connection_files stock; /* received last; those before `next` were taken */
    size_t next;
    size_t count;
    struct nvlxi_protocol_file wanted[];
};

/* Asks for as many more as one request may name. */
static int ask(struct fetch *fetch) {
    uint8_t request[NVLXI_PROTOCOL_FETCH_MAX];
    size_t count = nvlxi_min(fetch->count - fetch->asked, NVLXI_PROTOCOL_FILES_MAX);
    if (!count)
        return nvlxi_fail(NVLX_EINVAL, "all %zu files of the mapping have been taken", fetch->count);
    size_t length = nvlxi_protocol_put_fetch(request, &fetch->wanted[fetch->asked], count);
    int code = nvlxi_connection_send(&fetch->connection, request, length, nvlxi_deadline(fetch->patience_ns));
    if (!code)
        fetch->asked += count;
    return code;
}

static void close_stock(struct fetch *fetch) {
    for (; fetch->next < fetch->stock.count; fetch->next++)
        close(fetch->stock.fds[fetch->next]);
    fetch->stock.count = fetch->next = 0;
}

/* What came must be what was announced, neither more than was asked for. */
static int check_stock(struct fetch *fetch) {
    size_t announced;
    int code = nvlxi_protocol_get_files(fetch->connection.in.body, &announced);
    if (code)
        return code;
    if (fetch->stock.lost)
        return nvlxi_fail(NVLX_ENOMEM,
                          "no room for %zu file descriptors from \"%s\": too many open files in this process",
                          announced, fetch->connection.address);
    if (announced != fetch->stock.count || announced > fetch->asked - fetch->received)
        return nvlxi_fail(NVLX_EFORMAT, "the server at \"%s\" announced %zu file descriptors of %zu and sent %zu",
                          fetch->connection.address, announced, fetch->asked - fetch->received, fetch->stock.count);
    fetch->received += announced;
    return 0;
}

static int refill(struct fetch *fetch) {
    int code = fetch->received == fetch->asked ? ask(fetch) : 0;
    if (code)
        return code;
    fetch->stock = (struct nvlxi_connection_files){.count = 0};
    fetch->next = 0;
    code =
        nvlxi_connection_receive(&fetch->connection, NVLXI_PROTOCOL_FILES, &fetch->stock, 0, fetch->patience_ns, NULL);
    if (!code)
        code = check_stock(fetch);
    if (code)
        close_stock(fetch);
    return code;
}

static int take_file(struct nvlxi_files *files, int *fd) {
    struct nvlxi_source *source = nvlxi_container_of(files, struct nvlxi_source, files);
    struct fetch *fetch = nvlxi_container_of(source, struct fetch, source);
    int code = fetch->next < fetch->stock.count ? 0 : refill(fetch);
    if (!code)
        *fd = fetch->stock.fds[fetch->next++];
    return code;
}

static void close_fetch(struct nvlxi_source *source) {
    struct fetch *fetch = nvlxi_container_of(source, struct fetch, source);
    close_stock(fetch);
    nvlxi_connection_close(&fetch->connection);
    free(fetch);
}

static struct fetch *make_fetch(const struct nvlxi_segment_record *segments, size_t count, int64_t patience_ns) {
    struct fetch *made = calloc(1, sizeof *made + count * sizeof made->wanted[0]);
    if (!made)
        return NULL;
    made->source = (struct nvlxi_source){.files = {.take = take_file}, .close = close_fetch};
    made->patience_ns = patience_ns;
    for (size_t i = 0; i < count; i++)
        if (segments[i].file)
            made->wanted[made->count++] = (struct nvlxi_protocol_file){segments[i].base, segments[i].serial};
    return made;
}

/* By a connection of its own. */
static int open_fetch(const struct nvlxi_descriptor *owner, const struct nvlxi_segment_record *segments, size_t count,
                      int64_t patience_ns, struct nvlxi_source **source) {
    struct fetch *made = make_fetch(segments, count, patience_ns);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to fetch the files of %zu segments", count);
    int code = nvlxi_connection_open(&made->connection, owner->address, NVLXI_PROTOCOL_FETCHER, false,
                                     nvlxi_deadline(patience_ns));
    if (code)
        goto free_fetch;
    if (strcmp(made->connection.engine, owner->identity.engine)) {
        code = nvlxi_fail(NVLX_ESTALE, "another engine serves at \"%s\": the peer is gone", owner->address);
        goto close_connection;
    }
    *source = &made->source;
    return 0;
close_connection:
    nvlxi_connection_close(&made->connection);
free_fetch:
    free(made);
    return code;
}

static int open_files(struct nvlxi_file_server *server, const struct nvlx_peer *peer,
                      const struct nvlxi_descriptor *owner, const struct nvlxi_segment_record *segments, size_t count,
                      struct nvlxi_files **files) {
    const struct nvlxi_fetcher *fetcher = nvlxi_container_of(server, struct nvlxi_fetcher, server);
    struct nvlxi_source *source;
    int code;
    if (peer->channel)
        code = nvlxi_channel_open(peer->channel, segments, count, owner->identity.generation, fetcher->patience_ns,
                                  &source);
    else if (!owner->address[0])
        code = nvlxi_fail(NVLX_ENOTSUP,
                          "segment 0x%" PRIx64 " of kind \"%s\" is opened by a file descriptor, but its process does "
                          "not serve any: it must call nvlx_serve before it exports",
                          segments[0].base, segments[0].kind_name);
    else
        code = open_fetch(owner, segments, count, fetcher->patience_ns, &source);
    if (!code)
        *files = &source->files;
    return code;
}

static void close_files(struct nvlxi_file_server *server, struct nvlxi_files *files) {
    struct nvlxi_source *source = nvlxi_container_of(files, struct nvlxi_source, files);
    (void)server;
    source->close(source);
}

void nvlxi_fetcher_init(struct nvlxi_fetcher *fetcher) {
    fetcher->server = (struct nvlxi_file_server){.open = open_files, .close = close_files};
    fetcher->patience_ns = PATIENCE_NS;
}
