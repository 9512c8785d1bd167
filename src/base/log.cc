// Where log lines go, and how many. The only place that knows glog.
// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <glog/logging.h>

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <ctime>

extern "C" {
#include "base/base.h"
#include "base/error.h"
}
#include "base/mute.h"
#include "base/utf8.h"

namespace {

struct Sink {
    int level;
    nvlx_log_function function;
    void *context;
};

constexpr int level_unknown = -1; // the environment was not asked yet
constexpr unsigned lines_a_window = 200;
constexpr uint64_t window_ns = 1000000000;

// Lines of one level that glog or stderr got. A program's own function gets all of them.
struct Window {
    uint64_t since;
    unsigned lines;
    uint64_t left_out; // since it was told last
};

// Who logs uses the sink without a lock, and is counted, so that nvlx_set_log can wait until nobody uses the old one.
// Two counts take turns: one for the sink as it is, one for the one before.
std::atomic<int> highest_level(level_unknown); // of the sink, to be seen without the lock
pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
Sink sink = {level_unknown, nullptr, nullptr};
unsigned turn;     // users[turn] is of `sink`
unsigned users[2]; // of both sinks, now
bool replacing;    // a thread waits for the users of the old sink
Window windows[NVLX_LOG_DEBUG + 1];

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

// "2026-11-28T22:43:53", in UTC, of seconds since 1970. Not by the C library: its functions take a lock, which a forked
// child may find held. Years begin in March here, so that a leap day is the last of its year.
void put_date(long seconds, char *date, size_t room) {
    const long days = seconds / 86400 + 719468, second = seconds % 86400; // since 0000-03-01
    const long era = days / 146097, day_of_era = days % 146097;           // of 400 years
    const long year = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const long day = day_of_era - (365 * year + year / 4 - year / 100);
    const long from_march = (5 * day + 2) / 153;
    const long month = from_march < 10 ? from_march + 3 : from_march - 9;
    std::snprintf(date, room, "%04ld-%02ld-%02ldT%02ld:%02ld:%02ld", era * 400 + year + (month <= 2), month,
                  day - (153 * from_march + 2) / 5 + 1, second / 3600, second / 60 % 60, second % 60);
}

void to_stderr(int level, const char *message) {
    char line[900], date[64];
    nvlxi_mute pipe, file;
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    put_date(now.tv_sec, date, sizeof date);
    const int length =
        std::snprintf(line, sizeof line, "%c nvlxfer, %sprocess %ld, %s.%06ldZ: %s\n", "EWID"[level],
                      forked.load() ? "forked " : "", static_cast<long>(getpid()), date, now.tv_nsec / 1000, message);
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

void to_default(int level, const char *message) {
    if (forked.load() || !google::IsGoogleLoggingInitialized()) {
        to_stderr(level, message);
        return;
    }
    try {
        to_glog(level, message);
    } catch (...) {
        // A log that cannot be written must not take the caller down.
    }
}

// Counts a line in its level's window. `*before` becomes how many were left out before it. Returns the number of the
// line in its window, from 1 on.
unsigned enter_window(int level, uint64_t *before) {
    const uint64_t now = nvlxi_now_ns();
    pthread_mutex_lock(&mutex);
    Window &window = windows[level];
    if (now - window.since >= window_ns) {
        window.since = now;
        window.lines = 0;
    }
    const unsigned number = ++window.lines;
    window.left_out += number > lines_a_window;
    *before = number == 1 ? window.left_out : 0;
    if (number == 1)
        window.left_out = 0;
    pthread_mutex_unlock(&mutex);
    return number;
}

void to_default_limited(int level, const char *message) {
    static const char *const names[] = {"errors", "warnings", "lines at INFO", "lines at DEBUG"};
    char note[120];
    uint64_t before;
    const unsigned number = enter_window(level, &before);
    if (before) {
        std::snprintf(note, sizeof note, "%llu %s were left out", static_cast<unsigned long long>(before),
                      names[level]);
        to_default(level, note);
    }
    if (number <= lines_a_window)
        to_default(level, message);
    if (number == lines_a_window) {
        std::snprintf(note, sizeof note,
                      "%u %s within a second: more of them are left out and counted, until it is over", number,
                      names[level]);
        to_default(level, note);
    }
}

// The level may have been changed since it was looked at.
void write_message(const Sink &to, int level, const char *message) {
    if (to.level != level_unknown && level > to.level)
        return;
    if (to.function != nullptr) {
        to_function(to, level, message);
    } else {
        to_default_limited(level, message);
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

extern "C" bool nvlxi_log_is_on(int level) {
    return level <= current_level();
}

extern "C" void nvlxi_log(int level, const char *format, ...) {
    if (level > current_level() || logging)
        return;
    char message[640];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    nvlxi_text_to_line(message);
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
