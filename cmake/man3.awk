# Manual pages of section 3 from the comments of include/nvlxfer.h: nvlxfer.3 is its introduction, each of its sections is
# a page, and each function and struct leads to the page of its section.
# Usage: awk -v folder=FOLDER -v date=YYYY-MM-DD -v version=VERSION -f man3.awk nvlxfer.h
# SPDX-License-Identifier: Apache-2.0

function fail(why) {
    print "man3.awk: " FILENAME ":" FNR ": " why > "/dev/stderr"
    failed = 1
    exit 1
}

function put(line) {
    if (line == ".PP" && (body == "" || body ~ /\n\.S[HS] [^\n]*\n$|^\.S[HS] [^\n]*\n$|(^|\n)\.PP\n$/))
        return # there is room already
    body = body line "\n"
}

# What troff would take for a request or an escape.
function escape(line) {
    gsub(/\\/, "\\e", line)
    gsub(/-/, "\\-", line)
    sub(/^[.']/, "\\\\\\&&", line)
    return line
}

function end_example() {
    if (in_example)
        put(".EE")
    in_example = 0
}

function begin_example() {
    if (!in_example)
        put(".EX")
    in_example = 1
}

# A line of a comment, without its frame. Blank lines, points and indentation mean what they mean in the header.
function put_text(line, next_line) {
    if (line == "") {
        end_example()
        in_errors = in_point = 0
        broken = 1
    } else if (line ~ /^Errors( of [a-z_]+)?:/) {
        end_example()
        put(".PP")
        put(escape(line))
        in_errors = 1
        in_point = broken = 0
    } else if (in_errors && line ~ /^ /) {
        sub(/^ +/, "", line)
        if (line ~ /^NVLX_/)
            put(".br")
        put(escape(line))
    } else if (line ~ /^- /) {
        end_example()
        put(".IP \\(bu 2")
        put(escape(substr(line, 3)))
        in_point = 1
        in_errors = broken = 0
    } else if (line ~ /^    /) {
        if (broken && !in_example)
            put(".PP")
        begin_example()
        put(escape(substr(line, 3)))
        broken = 0
    } else if (in_point && line ~ /^  /) {
        end_example()
        put(escape(substr(line, 3)))
    } else if (broken && next_line == "" && line !~ /[.:,;]$/) {
        put(".SS " escape(line))
        broken = 0
    } else {
        end_example()
        if (broken || in_point || in_errors)
            put(".PP")
        sub(/^ +/, "", line)
        put(escape(line))
        in_point = in_errors = broken = 0
    }
}

function put_comment(i) {
    in_point = in_errors = 0
    broken = 1
    for (i = 1; i <= texts; i++)
        put_text(text[i], i < texts ? text[i + 1] : "")
    end_example()
}

function put_code(i) {
    put(".PP")
    put(".EX")
    for (i = 1; i <= codes; i++)
        put(escape(code[i]))
    put(".EE")
}

# Of what is no function, behind one.
function heading(line) {
    if (line ~ /^(enum|typedef)/)
        return line ~ /^enum/ ? "Constants" : "Types"
    sub(/^#define /, "", line)
    sub(/ *[({;].*/, "", line)
    return line
}

# A comment and what it is about.
function flush_block(i) {
    while (codes && code[codes] == "")
        codes--
    if (names != "") {
        put(".SS " names)
        put_code()
        for (i = 1; i <= codes; i++)
            synopsis = synopsis escape(code[i]) "\n"
        if (!texts) {
            put(".PP")
            put("Sets every field to its default.")
        }
        put_comment()
    } else {
        if (codes && body ~ /\n\.SS /)
            put(".SS " heading(code[1]))
        put_comment()
        if (codes)
            put_code()
    }
    texts = codes = 0
    names = ""
}

function write_page(name, title, names, synopsis, body, file) {
    file = folder "/" name ".3"
    printf ".TH %s 3 %s \"libnvlxfer %s\"\n.SH NAME\n%s%s \\- %s\n", toupper(name), date, version, name, names, title > file
    printf ".SH SYNOPSIS\n.nf\n#include <nvlxfer.h>\n%s.fi\n.PP\nLink with \\-lnvlxfer.\n", synopsis == "" ? "" : "\n" synopsis > file
    printf ".SH DESCRIPTION\n%s", body > file
    printf ".SH SEE ALSO\n%s\n", name == "nvlxfer" ? pages ".BR nvlx_info (1),\n.BR nvlx_ping (1),\n.BR nvlx_perf (1)" : ".BR nvlxfer (3)" > file
    close(file)
}

function flush_page(i) {
    flush_block()
    if (page == "")
        return
    write_page(page, title, page_names, synopsis, body)
    pages = pages ".BR " page " (3),\n"
    taken[page] = 1
    for (i = 1; i <= functions; i++) {
        if (alias[i] == page)
            fail("the page " page " has the name of a function")
        print "ln -sf '" page ".3' '" folder "/" alias[i] ".3'" | "sh -e"
    }
    body = synopsis = page_names = ""
    functions = 0
}

function add_function(line, name) {
    name = line
    sub(/\(.*/, "", name)
    sub(/.*[ *]/, "", name)
    names = names (names == "" ? "" : ", ") name
    page_names = page_names ", " name
    alias[++functions] = name
    taken[name] = 1
}

# It is linked at the end, as a page or function may have its name.
function add_struct(line) {
    sub(/^struct /, "", line)
    sub(/[ ;].*/, "", line)
    if (!(line in struct_page) || $0 ~ /\{$/)
        struct_page[line] = page
}

# The introduction is the first comment.
!introduced {
    line = $0
    last = sub(/ *\*\/$/, "", line)
    sub(/^\/\* |^ \* ?/, "", line)
    if (FNR == 1)
        purpose = line
    else if (line !~ /^SPDX/)
        text[++texts] = line
    if (!last)
        next
    put_comment()
    sub(/^libnvlxfer: /, "", purpose)
    sub(/\.$/, "", purpose)
    introduction = body
    body = ""
    texts = 0
    introduced = 1
    next
}

/^\/\* ==== / {
    next
}

/^\/\* ---- / {
    flush_page()
    title = $0
    sub(/^\/\* ---- /, "", title)
    sub(/ -+ \*\/$/, "", title)
    page = tolower(title)
    gsub(/[^a-z0-9]+/, "_", page)
    page = "nvlx_" page
    title = "libnvlxfer: " tolower(substr(title, 1, 1)) substr(title, 2)
    next
}

page == "" || skipping {
    skipping = skipping && $0 != "}"
    next
}

/^#ifdef __GNUC__/ { # the end
    exit
}

in_comment || /^\/\*/ {
    if (!in_comment && codes)
        flush_block()
    line = $0
    in_comment = !sub(/ *\*\/$/, "", line)
    sub(/^\/\* |^ \* ?/, "", line)
    if (line != "" || in_comment)
        text[++texts] = line
    next
}

$0 == "" && names != "" && in_code {
    in_code = 0
    flush_block()
    next
}

$0 == "" {
    if (codes || texts)
        flush_block()
    next
}

/^static inline / {
    sub(/^static inline /, "")
    sub(/ \{$/, ";")
    add_function($0)
    code[++codes] = $0
    skipping = 1
    in_code = 1
    next
}

{
    if ($0 ~ /^[a-z].*[ *]nvlx_[a-z0-9_]+\(/ && $0 !~ /^typedef/) {
        add_function($0)
        in_code = 1
    }
    if ($0 ~ /^struct nvlx_[a-z_]+( \{|;)/)
        add_struct($0)
    code[++codes] = $0
}

END {
    if (failed)
        exit 1
    flush_page()
    for (name in struct_page)
        if (name in taken && struct_page[name] != name)
            printf ".PP\nThe struct of this name is on\n.BR %s (3).\n", struct_page[name] >> folder "/" name ".3"
        else if (!(name in taken))
            print "ln -sf '" struct_page[name] ".3' '" folder "/" name ".3'" | "sh -e"
    if (pages == "")
        fail("no section was found")
    write_page("nvlxfer", purpose, "", "", introduction)
    if (close("sh -e"))
        fail("links could not be made")
}
