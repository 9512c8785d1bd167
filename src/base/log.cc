// The only place that knows glog.
// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <glog/logging.h>

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

extern "C" {
#include "base/error.h"
}
#include "base/mute.h"

namespace {

struct Sink {
    int level;
    nvlx_log_function function;
    void *context;
};

constexpr int level_unknown = -1; // the environment was not asked yet

// Who logs uses the sink without a lock, and is counted, so that nvlx_set_log can wait until nobody uses the old one.
// Two counts take turns: one for the sink as it is, one for the one before.
std::atomic<int> highest_level(level_unknown); // of the sink, to be seen without the lock
pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
Sink sink = {level_unknown, nullptr, nullptr};
unsigned turn;     // users[turn] is of `sink`
unsigned users[2]; // of both sinks, now
bool replacing;    // a thread waits for the users of the old sink

std::atomic<bool> forked(false); // this process is a child that did not exec: glog's locks may be held for ever

thread_local bool logging;          // this thread is inside a sink,
thread_local unsigned logging_turn; // counted in users[logging_turn]

bool is_level(const char *text) {
    return text[0] >= '0' && text[0] <= '3' && text[1] == '\0';
}

// Who takes the level from the environment, once, tells what is wrong there.
int current_level() {
    int level = highest_level.load(std::memory_order_relaxed);
    if (level != level_unknown)
        return level;
    const char *text = std::getenv("NVLX_LOG_LEVEL");
    const bool given = text != nullptr && text[0] != '\0', good = given && is_level(text);
    const int first = good ? text[0] - '0' : NVLX_LOG_WARNING;
    if (!highest_level.compare_exchange_strong(level, first))
        return level;
    if (given && !good)
        nvlxi_log(NVLX_LOG_WARNING, "NVLX_LOG_LEVEL is \"%.40s\", not 0, 1, 2 or 3: 1 (warnings) is taken", text);
    return first;
}

Sink enter_sink() {
    pthread_mutex_lock(&mutex);
    const Sink now = sink;
    logging = true;
    logging_turn = turn;
    users[turn]++;
    pthread_mutex_unlock(&mutex);
    return now;
}

void leave_sink() {
    pthread_mutex_lock(&mutex);
    logging = false;
    if (--users[logging_turn] == 0)
        pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

void to_glog(int level, const char *message) {
    const google::LogSeverity severity = level == NVLX_LOG_ERROR     ? google::GLOG_ERROR
                                         : level == NVLX_LOG_WARNING ? google::GLOG_WARNING
                                                                     : google::GLOG_INFO;
    google::LogMessage("nvlxfer", 0, severity).stream() << message;
}

void to_stderr(int level, const char *message) {
    char line[768];
    nvlxi_mute pipe, file;
    const int length = std::snprintf(line, sizeof line, "%c nvlxfer, forked process %ld: %s\n", "EWID"[level],
                                     static_cast<long>(getpid()), message);
    nvlxi_mute_begin(&pipe, SIGPIPE);
    nvlxi_mute_begin(&file, SIGXFSZ);
    const ssize_t written = write(STDERR_FILENO, line, static_cast<size_t>(length));
    static_cast<void>(written); // there is nowhere else to tell of a failure
    nvlxi_mute_end(&file);
    nvlxi_mute_end(&pipe);
}

// What the function itself fails at keeps out of the error that is being logged, and of what this thread is at.
void to_function(const Sink &to, int level, const char *message) {
    nvlxi_attempt aside;
    const char *text = nvlx_last_error();
    nvlxi_attempt_begin(&aside);
    std::snprintf(aside.text, sizeof aside.text, "%s", text);
    to.function(to.context, level, message);
    nvlxi_attempt_end(&aside, 0);
}

// The level may have been changed since it was looked at.
void write_message(const Sink &to, int level, const char *message) {
    if (to.level != level_unknown && level > to.level)
        return;
    if (to.function != nullptr) {
        to_function(to, level, message);
    } else if (forked.load()) {
        to_stderr(level, message);
    } else {
        try {
            to_glog(level, message);
        } catch (...) {
            // A log that cannot be written must not take the caller down.
        }
    }
}

} // namespace

extern "C" bool nvlxi_log_set(int level, nvlx_log_function function, void *context) {
    if (logging)
        return false;
    pthread_mutex_lock(&mutex);
    while (replacing)
        pthread_cond_wait(&changed, &mutex);
    replacing = true;
    sink = {level, function, context};
    highest_level.store(level);
    const unsigned old = turn;
    turn = 1 - old;
    while (users[old] != 0)
        pthread_cond_wait(&changed, &mutex);
    replacing = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
    return true;
}

extern "C" void nvlxi_log(int level, const char *format, ...) {
    if (level > current_level() || logging)
        return;
    char message[640];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    const Sink now = enter_sink();
    write_message(now, level, message);
    leave_sink();
}

extern "C" void nvlxi_log_fork(nvlxi_fork_phase phase) {
    if (phase == NVLXI_BEFORE_FORK) {
        pthread_mutex_lock(&mutex);
        return;
    }
    if (phase == NVLXI_IN_CHILD) { // the other threads are gone, inside a sink or waiting
        forked.store(true);
        replacing = false;
        users[0] = users[1] = 0;
        if (logging)
            users[logging_turn] = 1;
        changed = PTHREAD_COND_INITIALIZER;
    }
    pthread_mutex_unlock(&mutex);
}
