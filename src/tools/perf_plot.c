/* nvlx_perf: the rates over the size of a fragment, as SVG: a panel for each op and direction.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "perf_report.h"

#define WIDTH  980
#define HEIGHT 460 /* of a panel */
#define LEFT   70
#define RIGHT  250 /* where the names are */
#define TOP    50
#define BOTTOM 60

static const char *const colors[] = {"#0b5fa5", "#d1495b", "#2e8b57", "#8e44ad",
                                     "#c77d0a", "#16808c", "#7a5230", "#555555"};

struct panel {
    FILE *file;
    const struct perf_results *results;
    uint32_t opcode;
    bool both;
    double top, highest;                 /* where it begins on the page; GB/s at its upper edge */
    uint64_t places[PERF_FRAGMENTS_MAX]; /* sizes of a fragment, ascending */
    size_t place_count;
};

static bool belongs(const struct panel *panel, const struct perf_row *row) {
    return row->opcode == panel->opcode && row->both == panel->both;
}

static void add_place(struct panel *panel, uint64_t fragment) {
    size_t at = panel->place_count;
    for (size_t i = 0; i < panel->place_count; i++)
        if (panel->places[i] == fragment)
            return;
    for (; at && panel->places[at - 1] > fragment; at--)
        panel->places[at] = panel->places[at - 1];
    panel->places[at] = fragment;
    panel->place_count++;
}

/* Each size of a fragment has its place, the next one beside it. */
static double x_of(const struct panel *panel, uint64_t fragment) {
    size_t at = 0;
    while (at + 1 < panel->place_count && panel->places[at] != fragment)
        at++;
    return LEFT + ((double)at + 0.5) * (WIDTH - LEFT - RIGHT) / (double)panel->place_count;
}

static double y_of(const struct panel *panel, double rate) {
    return panel->top + HEIGHT - BOTTOM - rate / panel->highest * (HEIGHT - TOP - BOTTOM);
}

static double step_for(double highest) {
    double step = 0.001;
    while (highest / step > 8)
        step *= highest / step > 80 ? 10 : highest / step > 40 ? 5 : 2;
    return step;
}

static void write_axes(const struct panel *panel) {
    const double right = WIDTH - RIGHT, step = step_for(panel->highest);
    for (int i = 0; step * i <= panel->highest; i++) {
        const double y = y_of(panel, step * i);
        fprintf(panel->file,
                "<line x1=\"%d\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\" stroke=\"#dddddd\"/>\n"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                LEFT, y, right, y, LEFT - 8, y + 4, step * i);
    }
    for (size_t i = 0; i < panel->place_count; i++)
        fprintf(panel->file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                x_of(panel, panel->places[i]), panel->top + HEIGHT - BOTTOM + 20,
                perf_size_text(panel->places[i]).text);
    fprintf(panel->file,
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">bytes a fragment</text>\n"
            "<text x=\"%d\" y=\"%.1f\" font-weight=\"bold\">%s%s, GB/s from the call to completion%s</text>\n",
            (LEFT + right) / 2, panel->top + HEIGHT - BOTTOM + 42, LEFT, panel->top + TOP - 20,
            panel->opcode == NVLX_OP_READ ? "Read (get)" : "Write (put)",
            panel->both ? ", both directions at once" : "", panel->both ? ", each way" : "");
}

static void write_name(const struct panel *panel, size_t line, const char *style, const char *name) {
    const double x = WIDTH - RIGHT + 15, y = panel->top + TOP + 10 + 18 * (double)line;
    fprintf(panel->file, "<line x1=\"%.0f\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\" %s/>\n<text x=\"%.0f\" y=\"%.1f\">", x,
            y, x + 30, y, style, x + 38, y + 4);
    for (; *name; name++) {
        if (*name == '<')
            fputs("&lt;", panel->file);
        else if (*name == '&')
            fputs("&amp;", panel->file);
        else
            fputc(*name, panel->file);
    }
    fputs("</text>\n", panel->file);
}

/* Ours are thick and whole, the raw ones thin and dashed. False: nothing was measured. */
static bool write_curve(const struct panel *panel, size_t column, const char *style) {
    const struct perf_results *results = panel->results;
    size_t points = 0;
    for (size_t place = 0; place < panel->place_count; place++)
        for (size_t i = 0; i < results->row_count; i++) {
            const struct perf_row *row = &results->rows[i];
            if (!belongs(panel, row) || row->fragment != panel->places[place] || row->cells[column].why_not)
                continue;
            fprintf(panel->file, "%s%.1f,%.1f", points++ ? " " : "<polyline points=\"", x_of(panel, row->fragment),
                    y_of(panel, perf_rate(row, &row->cells[column])));
        }
    if (points)
        fprintf(panel->file, "\" fill=\"none\" %s/>\n", style);
    return points > 0;
}

static void write_link(const struct panel *panel, size_t line) {
    static const char style[] = "stroke=\"#000000\" stroke-width=\"1\" stroke-dasharray=\"2 3\"";
    const double y = y_of(panel, panel->results->link[panel->opcode]);
    char name[64];
    fprintf(panel->file, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" %s/>\n", LEFT, y, WIDTH - RIGHT, y, style);
    snprintf(name, sizeof name, "the link: one copy of %s", perf_size_text(panel->results->link_bytes).text);
    write_name(panel, line, style, name);
}

static void measure_panel(struct panel *panel) {
    panel->highest = panel->results->link[panel->opcode];
    for (size_t i = 0; i < panel->results->row_count; i++) {
        const struct perf_row *row = &panel->results->rows[i];
        if (!belongs(panel, row))
            continue;
        add_place(panel, row->fragment);
        for (size_t j = 0; j < panel->results->column_count; j++)
            if (!row->cells[j].why_not && perf_rate(row, &row->cells[j]) > panel->highest)
                panel->highest = perf_rate(row, &row->cells[j]);
    }
    panel->highest = panel->highest > 0 ? panel->highest * 1.05 : 1;
}

static void write_panel(struct panel *panel) {
    size_t line = 0;
    write_axes(panel);
    for (size_t i = 0; i < panel->results->column_count; i++) {
        const bool raw = panel->results->columns[i].kind == PERF_RAW;
        char style[96];
        snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"%s\"%s", colors[i % PERF_ENTRIES(colors)],
                 raw ? "1.5" : "3", raw ? " stroke-dasharray=\"7 4\"" : "");
        if (write_curve(panel, i, style))
            write_name(panel, line++, style, panel->results->columns[i].name);
    }
    if (panel->results->link[panel->opcode])
        write_link(panel, line);
}

/* All panels, one below the other; returns how many. */
static int write_panels(FILE *file, const struct perf_results *results, bool count_only) {
    int count = 0;
    for (uint32_t i = 0; i < 4; i++) {
        struct panel panel = {
            .file = file, .results = results, .opcode = 1 + i / 2, .both = i % 2, .top = HEIGHT * count};
        measure_panel(&panel);
        if (!panel.place_count)
            continue;
        if (!count_only)
            write_panel(&panel);
        count++;
    }
    return count;
}

void perf_write_plot(const struct perf_session *session, const struct perf_results *results) {
    const char *path = session->options->plot;
    const int height = HEIGHT * write_panels(NULL, results, true) + 30;
    FILE *file = fopen(path, "w");
    if (!file)
        perf_die("--plot: %s: %s", path, strerror(errno));
    fprintf(file,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            WIDTH, height, WIDTH, height);
    write_panels(file, results, false);
    fprintf(file, "<text x=\"%d\" y=\"%d\" fill=\"#555555\">libnvlxfer %s, %s; %s%s</text>\n</svg>\n", LEFT,
            height - 12, nvlx_version(), session->platform, session->gpu[1],
            session->same_gpu ? ", both processes on it" : "");
    const bool failed = ferror(file) != 0;
    if (fclose(file) || failed)
        perf_die("--plot: %s: it could not be written whole", path);
}
