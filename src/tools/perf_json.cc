// nvlx_perf: all results as JSON; what was not measured is null. SPDX-License-Identifier: Apache-2.0
#include <json/json.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <ctime>
#include <exception>

#include "perf.h"

namespace {

Json::Value number(uint64_t value) {
    return Json::Value::UInt64{value};
}

Json::Value nanoseconds(double value) {
    return number(static_cast<uint64_t>(std::llround(value)));
}

Json::Value known(bool is_known, const Json::Value &value) {
    return is_known ? value : Json::Value();
}

Json::Value text_or_null(const char *text) {
    return known(*text != 0, text);
}

Json::Value gpu_of(const perf_session &session, int process) {
    Json::Value gpu;
    gpu["gpu"] = session.options->gpu[process];
    gpu["name"] = session.machine[process].gpu;
    return gpu;
}

void put_run(const perf_session &session, Json::Value *to) {
    const perf_machine &machine = session.machine[1];
    char host[256] = "", date[32] = "";
    const time_t now = time(nullptr);
    tm utc = {};
    gethostname(host, sizeof host - 1);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    Json::Value &run = *to;
    run["date"] = date;
    run["host"] = host;
    for (char **word = session.options->command; *word != nullptr; word++)
        run["command"].append(*word);
    run["versions"]["library"] = nvlx_version();
    run["versions"]["driver"] = text_or_null(machine.driver);
    run["versions"]["cuda"] = text_or_null(machine.cuda);
    run["versions"]["cuda_of_driver"] = text_or_null(machine.driver_cuda);
    run["backend"] = session.host ? "host" : "cuda";
    run["owner"] = gpu_of(session, 0);
    run["measuring"] = gpu_of(session, 1);
    run["same_gpu"] = session.same_gpu;
    run["arena_bytes"] = number(session.options->arena);
    run["regions"] = number(session.options->regions);
    run["pattern"] = perf_pattern_names[session.options->pattern];
    run["mechanism"] = perf_mechanism_names[session.options->mechanism];
    run["priority"] = session.options->priority;
    run["interrupted"] = perf_stopped();
}

// ---- Rows ------------------------------------------------------------------------------------------------

Json::Value share_of_best(const perf_table &table, const perf_row &row, const perf_cell &cell, uint32_t budget) {
    const perf_column *best = perf_best_raw(&table, &row, budget);
    return best != nullptr ? perf_rate(&row, &cell) / perf_rate(&row, &row.cells[best - table.columns]) : Json::Value();
}

Json::Value way_of(const perf_table &table, const perf_row &row, size_t i) {
    const perf_column &column = table.columns[i];
    const perf_cell &cell = row.cells[i];
    const bool measured = cell.why_not == nullptr, raw = PERF_IS_RAW(column.way), ours = measured && !raw;
    Json::Value way;
    way["way"] = column.name;
    way["raw"] = raw;
    way["max_sms"] = number(column.budget);
    way["not_measured"] = known(!measured, measured ? "" : cell.why_not);
    way["rounds"] = number(cell.rounds);
    way["gbps"] = known(measured, perf_rate(&row, &cell));
    way["median_ns"] = known(measured, nanoseconds(cell.wall));
    way["fastest_ns"] = known(measured, nanoseconds(cell.fastest));
    way["slowest_ns"] = known(measured, nanoseconds(cell.slowest));
    way["p90_ns"] = known(measured, nanoseconds(cell.p90));
    way["p99_ns"] = known(measured, nanoseconds(cell.p99));
    way["submit_ns"] = known(measured, nanoseconds(cell.submit));
    way["submit_ns_a_fragment"] = known(measured, perf_submit_each(&row, &cell));
    way["kernel"] = text_or_null(cell.kernel.name);
    way["sms"] = known(ours, number(cell.info.sms));
    way["engine_bytes"] = known(ours, number(cell.info.engine_bytes));
    way["engine_fragments"] = known(ours, number(cell.info.engine_fragments));
    way["kernel_bytes"] = known(ours, number(cell.info.kernel_bytes));
    way["kernel_fragments"] = known(ours, number(cell.info.kernel_fragments));
    way["of_best_raw"] = known(ours, share_of_best(table, row, cell, 0));
    way["of_best_raw_in_budget"] = known(ours, share_of_best(table, row, cell, column.budget));
    way["verified"] = cell.verified;
    way["wrong_bytes"] = known(cell.verified, number(cell.wrong));
    return way;
}

// Null, if the table was not asked for.
Json::Value rows_of(const perf_table &table) {
    Json::Value rows(Json::arrayValue);
    if (table.rows == nullptr)
        return {};
    for (size_t i = 0; i < table.row_count; i++) {
        const perf_row &from = table.rows[i];
        const perf_column *best = perf_best_raw(&table, &from, 0);
        Json::Value row;
        row["op"] = perf_op_names[from.opcode];
        row["both_directions"] = from.both;
        row["fragment"] = number(from.fragment);
        row["count"] = number(from.count);
        row["bytes"] = number(from.bytes);
        row["best_raw"] = known(best != nullptr, best != nullptr ? best->name : "");
        for (size_t j = 0; j < table.column_count; j++)
            row["ways"].append(way_of(table, from, j));
        rows.append(row);
    }
    return rows;
}

Json::Value link_of(const perf_results &results) {
    const double *rates = results.link;
    Json::Value link;
    link["bytes"] = number(results.link_bytes);
    link["read_gbps"] = known(rates[NVLX_OP_READ] > 0, rates[NVLX_OP_READ]);
    link["write_gbps"] = known(rates[NVLX_OP_WRITE] > 0, rates[NVLX_OP_WRITE]);
    return known(results.link_bytes != 0, link);
}

} // namespace

char *perf_json(const perf_session *session, const perf_results *results) {
    try {
        Json::StreamWriterBuilder builder;
        Json::Value root;
        builder["indentation"] = "  ";
        builder["enableYAMLCompatibility"] = true; // "key": value
        builder["precision"] = 4;
        builder["precisionType"] = "decimal";
        put_run(*session, &root);
        root["link"] = link_of(*results);
        root["rates"] = rows_of(results->rates);
        root["latency"] = rows_of(results->latency);
        root["wrong_bytes"] = number(results->wrong);
        return strdup((Json::writeString(builder, root) + "\n").c_str());
    } catch (const std::exception &error) {
        perf_die("JSON: %s", error.what());
    }
}
