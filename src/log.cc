// The only place that knows glog.
// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <glog/logging.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace {

struct Sink {
    int level;
    nvlx_log_function function;
    void *context;
};

int level_from_environment() {
    const char *text = std::getenv("NVLX_LOG_LEVEL");
    if (text == nullptr || text[0] < '0' || text[0] > '3' || text[1] != '\0')
        return NVLX_LOG_WARNING;
    return text[0] - '0';
}

std::mutex &sink_mutex() {
    static std::mutex mutex;
    return mutex;
}

Sink &sink() {
    static Sink the_sink = {level_from_environment(), nullptr, nullptr};
    return the_sink;
}

void to_glog(int level, const char *message) {
    const google::LogSeverity severity = level == NVLX_LOG_ERROR     ? google::GLOG_ERROR
                                         : level == NVLX_LOG_WARNING ? google::GLOG_WARNING
                                                                     : google::GLOG_INFO;
    google::LogMessage("nvlxfer", 0, severity).stream() << message;
}

} // namespace

extern "C" int nvlx_set_log(int level, nvlx_log_function function, void *context) {
    if (level < NVLX_LOG_ERROR || level > NVLX_LOG_DEBUG)
        return NVLX_EINVAL;
    const std::lock_guard<std::mutex> guard(sink_mutex());
    sink() = {level, function, context};
    return NVLX_OK;
}

extern "C" void nvlxi_log(int level, const char *format, ...) {
    Sink now;
    {
        const std::lock_guard<std::mutex> guard(sink_mutex());
        now = sink();
    }
    if (level > now.level)
        return;
    char message[640];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (now.function != nullptr) {
        now.function(now.context, level, message);
        return;
    }
    try {
        to_glog(level, message);
    } catch (...) {
        // A log that cannot be written must not take the caller down.
    }
}
