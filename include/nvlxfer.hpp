/* libnvlxfer for C++17 and newer: objects that end by themselves, over the C functions. Nothing of it is to be linked.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * nvlxfer.h is the manual. A member function here is one C function of nearly the same name: nvlx_memcpy is
 * engine.copy. An object's get() is its handle; memory has data(). This tells the rest:
 *
 *     auto engine = nvlx::engine::create().value();                      // throws nvlx::error
 *     auto region = engine.register_region(address, length, {"w0", NVLX_ACCESS_READ}).value();
 *
 *     auto request = engine.transfer(ops);                               // or without exceptions
 *     if (!request)
 *         return request.code();                                         // nvlx_last_error() has the message
 *     int code;
 *     while ((code = request->test().code()) == NVLX_EAGAIN)
 *         work();
 *     if (code)
 *         return code;                                                   // how the transfer failed
 *
 * - Errors. What can fail gives an nvlx::result: a code, and the value if the code is 0. The compiler warns where none
 *   looks at it. Its value() throws nvlx::error. Nothing else here throws, except std::bad_alloc of std::string. With
 *   -fno-exceptions there is no value().
 * - Objects are move-only, and as large as one to three pointers. One that was moved from is empty: its functions give
 *   NVLX_EINVAL, or free nothing. An object ends before its engine, and before what it uses. So declare the engine
 *   first, then memory, regions and peers, then lists, then requests.
 * - Destructors call the C function that frees, and drop its code. They never throw. Three of them wait, for at most
 *   what nvlx::destructor_limit says: 10 s if nothing does. ~request waits until the transfer ends. ~region and ~relay
 *   wait as nvlx_unregister does, until no peer uses it. Then the others find no transfer in flight.
 * - What has not ended by then is left to the engine. From then on no destructor of this module frees a peer, list,
 *   memory or engine: nobody knows what is still in use. The end of the process frees them. To do better, call
 *   request.wait and region.unregister with a timeout before. A module is the program, or one of its shared libraries:
 *   each that includes this header has a limit of its own, and does not know what others have left.
 * - Without a transfer, some C functions wait all the same, and so do the destructors of peers, memory and engines. It
 *   is for a kernel that runs while CUDA frees or closes, for a stream whose wait they end, and 1 s for messages or
 *   CUDA graphs. What a graph still uses then, destructors leave as it is.
 * - Destructors may change nvlx_last_error. An nvlx::error has a copy of the message, made by value(): so call that
 *   before this thread calls anything else.
 * - Timeouts are of std::chrono. A negative one is a time that is over: as 0. nvlx::forever has no end.
 * - Lists are a pointer and a size, an array, one object, or what has data() and size(): std::vector, std::span.
 * - Options are the C structs, with their defaults set.
 */
#ifndef NVLXFER_HPP
#define NVLXFER_HPP

#include <nvlxfer.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace nvlx {

/* ---- Errors ------------------------------------------------------------------------------------------ */

#ifdef __cpp_exceptions
/* What result.value() throws. what() has the text of the code and, except for NVLX_EAGAIN, nvlx_last_error. */
class error : public std::runtime_error {
  public:
    explicit error(int code) : std::runtime_error(text(code)), code_(code) {}
    int code() const noexcept { return code_; }

  private:
    static std::string text(int code) {
        std::string words = nvlx_strerror(code);
        return code == NVLX_EAGAIN ? words : words.append(": ").append(nvlx_last_error());
    }
    int code_;
};
#endif

/* Says that a result has no value. */
struct failure {
    int code;
};

namespace detail {

class status {
  public:
    int code() const noexcept { return code_; }
    explicit operator bool() const noexcept { return code_ == 0; }

  protected:
    explicit status(int code) noexcept : code_(code) {}
#ifdef __cpp_exceptions
    void check() const {
        if (code_ != 0)
            throw error(code_);
    }
#endif

  private:
    int code_;
};

} // namespace detail

/* A code: 0 or NVLX_E..., and the value if it is 0. Else the value is an empty one. */
template <class T> class [[nodiscard]] result : public detail::status {
  public:
    result(T &&value) noexcept(std::is_nothrow_move_constructible_v<T>) : status(0), value_(std::move(value)) {}
    result(failure cause) noexcept(std::is_nothrow_default_constructible_v<T>) : status(cause.code), value_() {}
    T &operator*() &noexcept { return value_; }
    const T &operator*() const &noexcept { return value_; }
    T *operator->() noexcept { return &value_; }
    const T *operator->() const noexcept { return &value_; }
#ifdef __cpp_exceptions
    T &value() & { return check(), value_; }
    const T &value() const & { return check(), value_; }
    T value() && { return check(), std::move(value_); }
#endif

  private:
    T value_;
};

template <> class [[nodiscard]] result<void> : public detail::status {
  public:
    result() noexcept : status(0) {}
    result(failure cause) noexcept : status(cause.code) {}
#ifdef __cpp_exceptions
    void value() const { check(); }
#endif
};

/* ---- Arguments --------------------------------------------------------------------------------------- */

struct forever_type {};
inline constexpr forever_type forever{};

/* A duration of std::chrono of any kind, or nvlx::forever. */
class timeout {
  public:
    template <class Rep, class Period>
    constexpr timeout(std::chrono::duration<Rep, Period> duration) noexcept : ns_(nanoseconds(duration)) {}
    constexpr timeout(forever_type) noexcept : ns_(-1) {}
    constexpr std::int64_t ns() const noexcept { return ns_; }

  private:
    /* Not a number counts as 0, and what int64_t cannot hold as its greatest value. */
    template <class Rep, class Period>
    static constexpr std::int64_t nanoseconds(std::chrono::duration<Rep, Period> duration) noexcept {
        if (!(duration > duration.zero()))
            return 0;
        if (std::chrono::duration<double, std::nano>(duration).count() >= 9.2e18)
            return (std::numeric_limits<std::int64_t>::max)();
        return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
    }
    std::int64_t ns_;
};

/* The objects of a list: they stay the caller's, and are read during the call only. */
template <class T> class span {
  public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    constexpr span(T &one) noexcept : data_(&one), size_(1) {}
    template <class List, class Data = decltype(std::data(std::declval<List &>())),
              class = std::enable_if_t<std::is_convertible_v<std::remove_pointer_t<Data> (*)[], T (*)[]>>>
    constexpr span(List &&list) noexcept : data_(std::data(list)), size_(std::size(list)) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/* A name or an address: a literal or a std::string. */
class name {
  public:
    name(const char *text) noexcept : text_(text) {}
    name(const std::string &text) noexcept : text_(text.c_str()) {}
    const char *get() const noexcept { return text_; }

  private:
    const char *text_;
};

struct config : nvlx_config {
    config() noexcept { nvlx_config_init(this); }
};

struct alloc_options : nvlx_alloc_options {
    alloc_options() noexcept { nvlx_alloc_options_init(this); }
};

struct region_options : nvlx_region_options {
    region_options(const char *its_name = nullptr, std::uint32_t its_access = NVLX_ACCESS_READ_WRITE) noexcept {
        nvlx_region_options_init(this);
        name = its_name;
        access = its_access;
    }
    /* The string stays the caller's, until nvlx_register has returned. */
    region_options(const std::string &its_name, std::uint32_t its_access = NVLX_ACCESS_READ_WRITE) noexcept
        : region_options(its_name.c_str(), its_access) {}
};

struct serve_options : nvlx_serve_options {
    serve_options() noexcept { nvlx_serve_options_init(this); }
};

struct transfer_options : nvlx_transfer_options {
    transfer_options() noexcept { nvlx_transfer_options_init(this); }
};

struct wait_options : nvlx_wait_options {
    wait_options() noexcept { nvlx_wait_options_init(this); }
};

struct blocks_options : nvlx_blocks_options {
    blocks_options() noexcept { nvlx_blocks_options_init(this); }
};

struct block_ids : nvlx_block_ids {
    block_ids() noexcept { nvlx_block_ids_init(this); }
};

struct relay_options : nvlx_relay_options {
    relay_options() noexcept { nvlx_relay_options_init(this); }
};

/* ---- Ends -------------------------------------------------------------------------------------------- */

namespace detail {

/* Of this module alone, so that a shared library that has them can be unloaded. */
#ifdef __GNUC__
#define NVLXFER_HPP_OF_MODULE __attribute__((visibility("hidden")))
#else
#define NVLXFER_HPP_OF_MODULE
#endif
NVLXFER_HPP_OF_MODULE inline std::atomic<std::int64_t> limit_ns{10000000000};
NVLXFER_HPP_OF_MODULE inline std::atomic<bool> left{false}; /* a destructor has left a transfer or a region */
#undef NVLXFER_HPP_OF_MODULE

struct end {
    void operator()(nvlx_request *request) const noexcept {
        if (nvlx_wait(request, limit_ns) == NVLX_ETIMEDOUT)
            left = true;
        else
            nvlx_request_free(request);
    }
    void operator()(nvlx_region *region) const noexcept {
        if (nvlx_unregister(region, limit_ns) == NVLX_ETIMEDOUT)
            left = true;
    }
    void operator()(nvlx_relay *relay) const noexcept {
        if (nvlx_relay_free(relay, limit_ns) == NVLX_ETIMEDOUT)
            left = true;
    }
    void operator()(nvlx_peer *peer) const noexcept { unless_left(nvlx_peer_close, peer); }
    void operator()(nvlx_prepared *prepared) const noexcept { unless_left(nvlx_prepared_free, prepared); }
    void operator()(nvlx_blocks *blocks) const noexcept { unless_left(nvlx_blocks_free, blocks); }
    void operator()(nvlx_engine *engine) const noexcept { unless_left(nvlx_engine_destroy, engine); }
    void operator()(char *text) const noexcept { nvlx_text_free(text); }

  private:
    template <class T> static void unless_left(int (*free)(T *), T *object) noexcept {
        if (!left)
            free(object);
    }
};

template <class T> using owner = std::unique_ptr<T, end>;

/* What the objects have in common: get() is the C object, release() gives it away. The constructor takes one over. */
template <class T> class object {
  public:
    object() noexcept = default;
    explicit object(T *handle) noexcept : handle_(handle) {}
    T *get() const noexcept { return handle_.get(); }
    T *release() noexcept { return handle_.release(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

  protected:
    owner<T> handle_;
};

/* The value, made of what a C function gave, or its code. */
template <class T, class... Parts> result<T> made(int code, Parts &&...parts) {
    if (code != 0)
        return failure{code};
    return T(std::forward<Parts>(parts)...);
}

inline result<void> done(int code) noexcept { return failure{code}; }

/* As `done`, of a function that frees unless the code is one of `kept`. */
template <class T, class... Codes> result<void> ended(owner<T> &object, int code, Codes... kept) noexcept {
    if (code != NVLX_EFORK && ((code != kept) && ...))
        static_cast<void>(object.release());
    return failure{code};
}

/* What `tell` writes behind its arguments: a number, or a struct that begins with its size. */
template <class Tell, class... Arguments> result<std::uint64_t> number(Tell tell, Arguments... arguments) noexcept {
    std::uint64_t value = 0;
    return made<std::uint64_t>(tell(arguments..., &value), value);
}
template <class Info, class Tell, class... Arguments> result<Info> info(Tell tell, Arguments... arguments) noexcept {
    Info told{};
    told.size = sizeof told;
    return made<Info>(tell(arguments..., &told), told);
}

struct freer {
    nvlx_engine *engine = nullptr;
    void operator()(void *address) const noexcept {
        if (!left)
            nvlx_free(engine, address);
    }
};

} // namespace detail

/* How long a destructor waits at most, from now on, in this module. */
inline void destructor_limit(std::chrono::nanoseconds limit) noexcept { detail::limit_ns = timeout(limit).ns(); }

/* ---- Objects ----------------------------------------------------------------------------------------- */

/* What nvlx_export and nvlx_peer_stats give: it has a final NUL. */
class text : public detail::object<char> {
  public:
    text() noexcept = default;
    text(char *characters, std::size_t length) noexcept : object(characters), length_(length) {}
    const char *data() const noexcept { return get(); }
    std::size_t size() const noexcept { return get() != nullptr ? length_ : 0; }
    operator std::string_view() const noexcept { return {data(), size()}; }

  private:
    std::size_t length_ = 0;
};

/* Memory of nvlx_alloc. It is not registered. */
class memory {
  public:
    memory() noexcept = default;
    memory(nvlx_engine *engine, void *address, std::size_t length) noexcept
        : address_(address, detail::freer{engine}), length_(length) {}
    void *data() const noexcept { return address_.get(); }
    std::size_t size() const noexcept { return address_ ? length_ : 0; }
    explicit operator bool() const noexcept { return address_ != nullptr; }
    result<void> free() noexcept {
        const int code = nvlx_free(address_.get_deleter().engine, address_.get());
        if (code == 0)
            static_cast<void>(address_.release());
        return detail::done(code);
    }

  private:
    std::unique_ptr<void, detail::freer> address_;
    std::size_t length_ = 0;
};

/* Several regions, by their C objects. */
inline result<void> suspend(span<nvlx_region *const> regions, timeout limit) noexcept {
    return detail::done(nvlx_suspend(regions.data(), regions.size(), limit.ns()));
}
inline result<void> resume(span<nvlx_region *const> regions, void *const *addresses = nullptr) noexcept {
    return detail::done(nvlx_resume(regions.data(), regions.size(), addresses));
}

class region : public detail::object<nvlx_region> {
  public:
    using object::object;
    /* After 0 the object is empty. After a failure it can be called again. */
    result<void> unregister(timeout limit) noexcept {
        const int code = nvlx_unregister(get(), limit.ns());
        if (code == 0)
            release();
        return detail::done(code);
    }
    result<void> suspend(timeout limit) noexcept {
        nvlx_region *const handle = get();
        return detail::done(nvlx_suspend(&handle, 1, limit.ns()));
    }
    /* nullptr: where it was. */
    result<void> resume(void *address = nullptr) noexcept {
        nvlx_region *const handle = get();
        return detail::done(nvlx_resume(&handle, 1, &address));
    }
    result<void> ready(void *stream) noexcept { return detail::done(nvlx_region_ready(get(), stream)); }
    result<std::uint64_t> set_digest() noexcept { return detail::number(nvlx_region_set_digest, get()); }
};

/* What nvlx_peer_find gives. */
struct range {
    std::uint64_t address, length;
};

class peer : public detail::object<nvlx_peer> {
  public:
    using object::object;
    result<void> close() noexcept { return detail::ended(handle_, nvlx_peer_close(get()), NVLX_EBUSY, NVLX_EINVAL); }
    result<range> find(name region) const noexcept {
        range found{};
        return detail::made<range>(nvlx_peer_find(get(), region.get(), &found.address, &found.length), found);
    }
    result<nvlx_region_info> region_info(name region) const noexcept {
        return detail::info<nvlx_region_info>(nvlx_peer_region_by_name, get(), region.get());
    }
    /* `place` is 0 before the first call. NVLX_ENOENT ends the list. */
    result<nvlx_region_info> next_region(std::size_t &place) const noexcept {
        return detail::info<nvlx_region_info>(nvlx_peer_region, get(), &place);
    }
    result<nvlx_peer_info> info() const noexcept { return detail::info<nvlx_peer_info>(nvlx_peer_get_info, get()); }
    result<std::uint64_t> generation() const noexcept { return detail::number(nvlx_peer_generation, get()); }
    result<void> test() const noexcept { return detail::done(nvlx_peer_test(get())); }
    result<void> sync(std::uint64_t generation, timeout limit) const noexcept {
        return detail::done(nvlx_peer_sync(get(), generation, limit.ns()));
    }
    result<void> update(std::string_view text) noexcept {
        return detail::done(nvlx_peer_update(get(), text.data(), text.size()));
    }
    result<void> send(std::string_view message) const noexcept {
        return detail::done(nvlx_send(get(), message.data(), message.size()));
    }
    result<void> map(int gpu, std::uint64_t address, std::uint64_t length) const noexcept {
        return detail::done(nvlx_peer_map(get(), gpu, address, length));
    }
    result<void> wake() const noexcept { return detail::done(nvlx_peer_wake(get())); }
    result<text> stats(timeout limit) const noexcept {
        char *characters = nullptr;
        std::size_t length = 0;
        return detail::made<text>(nvlx_peer_stats(get(), limit.ns(), &characters, &length), characters, length);
    }
};

class request : public detail::object<nvlx_request> {
  public:
    using object::object;
    result<void> test() const noexcept { return detail::done(nvlx_test(get())); }
    result<void> wait(timeout limit = forever) const noexcept { return detail::done(nvlx_wait(get(), limit.ns())); }
    result<nvlx_request_info> info() const noexcept {
        return detail::info<nvlx_request_info>(nvlx_request_get_info, get());
    }
    /* The object is empty then, whatever the code: it tells how the transfer failed. */
    result<void> free() noexcept { return detail::ended(handle_, nvlx_request_free(get())); }
};

class prepared : public detail::object<nvlx_prepared> {
  public:
    using object::object;
    result<request> post(const transfer_options &options = {}) noexcept {
        nvlx_request *handle = nullptr;
        return detail::made<request>(nvlx_post(get(), &options, &handle), handle);
    }
    /* Into the graph that options.stream captures: see Graphs in nvlxfer.h. */
    result<void> capture(const transfer_options &options) noexcept {
        return detail::done(nvlx_post(get(), &options, nullptr));
    }
    result<void> free() noexcept { return detail::ended(handle_, nvlx_prepared_free(get())); }
};

class blocks : public detail::object<nvlx_blocks> {
  public:
    using object::object;
    result<request> transfer(const block_ids &ids, const transfer_options &options = {}) noexcept {
        nvlx_request *handle = nullptr;
        return detail::made<request>(nvlx_blocks_transfer(get(), &ids, &options, &handle), handle);
    }
    /* Into the graph that options.stream captures: see Graphs in nvlxfer.h. */
    result<void> capture(const block_ids &ids, const transfer_options &options) noexcept {
        return detail::done(nvlx_blocks_transfer(get(), &ids, &options, nullptr));
    }
    result<void> free() noexcept { return detail::ended(handle_, nvlx_blocks_free(get())); }
};

/* One end of a relay: its source, or a reader. */
class relay : public detail::object<nvlx_relay> {
  public:
    using object::object;
    result<void> wait(timeout limit = forever) noexcept { return detail::done(nvlx_relay_wait(get(), limit.ns())); }
    result<void> hold() noexcept { return detail::done(nvlx_relay_hold(get())); }
    result<void> next() noexcept { return detail::done(nvlx_relay_next(get())); }
    result<nvlx_relay_info> info() const noexcept { return detail::info<nvlx_relay_info>(nvlx_relay_get_info, get()); }
    /* After 0 the object is empty. After a failure it can be called again. */
    result<void> free(timeout limit) noexcept {
        const int code = nvlx_relay_free(get(), limit.ns());
        if (code == 0)
            release();
        return detail::done(code);
    }
};

/* ---- Ops --------------------------------------------------------------------------------------------- */

inline nvlx_op read_op(const peer &from, void *local, std::uint64_t remote, std::uint64_t length) noexcept {
    return {NVLX_OP_READ, 0, from.get(), local, remote, length, 0};
}
inline nvlx_op write_op(const peer &to, const void *local, std::uint64_t remote, std::uint64_t length) noexcept {
    return {NVLX_OP_WRITE, 0, to.get(), const_cast<void *>(local), remote, length, 0};
}
inline nvlx_op signal_op(const peer &to, std::uint64_t remote, std::uint64_t value, std::uint32_t flags = 0) noexcept {
    return {NVLX_OP_SIGNAL, flags, to.get(), nullptr, remote, 0, value};
}
inline nvlx_op wait_ready_op(const peer &of, std::uint64_t remote, std::uint64_t value) noexcept {
    return {NVLX_OP_WAIT_READY, 0, of.get(), nullptr, remote, 0, value};
}
/* A read or write of rows, which live until the call that takes the op returns. */
inline nvlx_op rows_op(nvlx_op op, const nvlx_rows &rows) noexcept {
    op.flags |= NVLX_OP_ROWS;
    op.arg = reinterpret_cast<std::uintptr_t>(&rows);
    return op;
}
nvlx_op rows_op(nvlx_op op, const nvlx_rows &&rows) = delete;

/* ---- Engine ------------------------------------------------------------------------------------------ */

class engine : public detail::object<nvlx_engine> {
  public:
    using object::object;
    static result<engine> create(const config &options = {}) noexcept {
        nvlx_engine *handle = nullptr;
        return detail::made<engine>(nvlx_engine_create(&options, &handle), handle);
    }
    /* The object is empty then, whatever the code, except for NVLX_EFORK, and NVLX_EBUSY: a graph has a part of it. */
    result<void> destroy() noexcept { return detail::ended(handle_, nvlx_engine_destroy(get()), NVLX_EBUSY); }
    const char *backend_name() const noexcept { return nvlx_backend_name(get()); }
    result<nvlx_engine_info> info() const noexcept {
        return detail::info<nvlx_engine_info>(nvlx_engine_get_info, get());
    }

    result<memory> alloc(int gpu, std::size_t length, const alloc_options &options = {}) noexcept {
        void *address = nullptr;
        return detail::made<memory>(nvlx_alloc(get(), gpu, length, &options, &address), get(), address, length);
    }
    /* nvlx_memcpy. */
    result<void> copy(void *destination, const void *source, std::size_t length) noexcept {
        return detail::done(nvlx_memcpy(get(), destination, source, length));
    }
    /* nvlx_register. */
    result<region> register_region(const void *address, std::size_t length,
                                   const region_options &options = {}) noexcept {
        nvlx_region *handle = nullptr;
        return detail::made<region>(nvlx_register(get(), address, length, &options, &handle), handle);
    }
    result<std::uint64_t> digest(const void *address, std::size_t length) noexcept {
        return detail::number(nvlx_digest, get(), address, length);
    }
    result<void> hold() noexcept { return detail::done(nvlx_hold(get())); }
    result<std::uint64_t> publish() noexcept { return detail::number(nvlx_publish, get()); }
    result<void> check() noexcept { return detail::done(nvlx_check(get())); }

    /* nvlx_export. */
    result<text> export_text() noexcept {
        char *characters = nullptr;
        std::size_t length = 0;
        return detail::made<text>(nvlx_export(get(), &characters, &length), characters, length);
    }
    result<peer> open(std::string_view text) noexcept {
        nvlx_peer *handle = nullptr;
        return detail::made<peer>(nvlx_peer_open(get(), text.data(), text.size(), &handle), handle);
    }
    result<void> serve(name address, const serve_options &options = {}) noexcept {
        return detail::done(nvlx_serve(get(), address.get(), &options));
    }
    result<peer> connect(name address, timeout limit) noexcept {
        nvlx_peer *handle = nullptr;
        return detail::made<peer>(nvlx_connect(get(), address.get(), limit.ns(), &handle), handle);
    }

    result<request> transfer(span<const nvlx_op> ops, const transfer_options &options = {}) noexcept {
        nvlx_request *handle = nullptr;
        return detail::made<request>(nvlx_transfer(get(), ops.data(), ops.size(), &options, &handle), handle);
    }
    result<prepared> prepare(span<const nvlx_op> ops, const transfer_options &options = {}) noexcept {
        nvlx_prepared *handle = nullptr;
        return detail::made<prepared>(nvlx_prepare(get(), ops.data(), ops.size(), &options, &handle), handle);
    }
    /* nvlx_blocks_create. */
    result<blocks> create_blocks(const peer &other, const nvlx_block_region *local, const nvlx_block_region *remote,
                                 std::size_t count, const blocks_options &options = {}) noexcept {
        nvlx_blocks *handle = nullptr;
        return detail::made<blocks>(nvlx_blocks_create(get(), other.get(), local, remote, count, &options, &handle),
                                    handle);
    }

    /* nvlx_relay_offer. */
    result<relay> offer(name address, span<const nvlx_relay_part> parts, const relay_options &options = {}) noexcept {
        nvlx_relay *handle = nullptr;
        return detail::made<relay>(
            nvlx_relay_offer(get(), address.get(), parts.data(), parts.size(), &options, &handle), handle);
    }
    /* nvlx_relay_join. */
    result<relay> join(name address, span<const nvlx_relay_part> parts, timeout limit,
                       const relay_options &options = {}) noexcept {
        nvlx_relay *handle = nullptr;
        return detail::made<relay>(
            nvlx_relay_join(get(), address.get(), parts.data(), parts.size(), &options, limit.ns(), &handle), handle);
    }

    result<int> event_fd() const noexcept {
        int fd = -1;
        return detail::made<int>(nvlx_event_fd(get(), &fd), fd);
    }
    /* NVLX_EAGAIN: there is none. */
    result<nvlx_event> next_event() noexcept { return detail::info<nvlx_event>(nvlx_next_event, get()); }

    /* The stream goes on without the CPU: see Signals in nvlxfer.h. */
    result<void> stream_signal(void *stream, const peer &to, std::uint64_t address, std::uint64_t value,
                               std::uint32_t flags = 0) noexcept {
        return detail::done(nvlx_stream_signal(get(), stream, to.get(), address, value, flags));
    }
    result<std::uint64_t> stream_wait(void *stream, const peer &from, const void *address, std::uint64_t value,
                                      const wait_options &options = {}) noexcept {
        return detail::number(nvlx_stream_wait, get(), stream, from.get(), address, value, &options);
    }
    result<void> stream_wait_status(std::uint64_t wait) const noexcept {
        return detail::done(nvlx_stream_wait_status(get(), wait));
    }
    result<std::uint64_t> signal_read(const void *address) const noexcept {
        return detail::number(nvlx_signal_read, get(), address);
    }
    result<void> signal_wait(const void *address, std::uint64_t value, timeout limit) const noexcept {
        return detail::done(nvlx_signal_wait(get(), nullptr, address, value, limit.ns()));
    }
    result<void> signal_wait(const peer &from, const void *address, std::uint64_t value, timeout limit) const noexcept {
        return detail::done(nvlx_signal_wait(get(), from.get(), address, value, limit.ns()));
    }

    result<nvlx_counts> stats() const noexcept { return detail::info<nvlx_counts>(nvlx_stats, get(), nullptr); }
    result<nvlx_counts> stats(const peer &of) const noexcept {
        return detail::info<nvlx_counts>(nvlx_stats, get(), of.get());
    }
    /* NVLX_EINVAL: peers were opened meanwhile. */
    result<std::string> stats_prometheus() const {
        std::size_t length = 0;
        std::string characters;
        int code = nvlx_stats_prometheus(get(), nullptr, 0, &length);
        if (code != 0)
            return failure{code};
        characters.resize(length);
        code = nvlx_stats_prometheus(get(), characters.data(), length, &length);
        if (code != 0)
            return failure{code};
        characters.resize(length);
        return characters;
    }
};

/* ---- The process ------------------------------------------------------------------------------------- */

inline result<int> gpu_count(std::uint32_t backend = NVLX_BACKEND_AUTO) noexcept {
    int count = 0;
    return detail::made<int>(nvlx_gpu_count(backend, &count), count);
}
inline result<void> set_log(int level, nvlx_log_function function = nullptr, void *context = nullptr) noexcept {
    return detail::done(nvlx_set_log(level, function, context));
}

} // namespace nvlx

#endif
