# A manual page of section 1 from what a tool says of itself.
# Usage: TOOL --help | awk -v name=TOOL -v date=YYYY-MM-DD -v version=VERSION -f man1.awk
# SPDX-License-Identifier: Apache-2.0

function escape(line) {
    gsub(/\\/, "\\e", line)
    gsub(/-/, "\\-", line)
    sub(/^[.']/, "\\\\\\&&", line)
    return line
}

function put(line) {
    body = body line "\n"
}

/^[Uu]sage: / {
    in_usage = 1
    sub(/^[Uu]sage: /, "")
}

in_usage && /^( *)?[a-z_]+ / && $1 == name {
    sub(/^ +/, "")
    synopsis = synopsis (synopsis == "" ? "" : ".br\n") escape($0) "\n"
    next
}

{
    in_usage = 0
}

/^$/ {
    broken = 1
    next
}

# An option, and what it does behind two blanks or in the lines that follow, which are further to the right.
/^ ? ? ? ? ? ? ? ?-/ {
    sub(/^ +/, "")
    said = ""
    if (match($0, /  +/)) {
        said = substr($0, RSTART + RLENGTH)
        $0 = substr($0, 1, RSTART - 1)
    }
    put(".TP")
    put(".B " escape($0))
    if (said != "")
        put(escape(said))
    in_option = 1
    broken = 0
    next
}

in_option && /^     / {
    sub(/^ +/, "")
    put(escape($0))
    next
}

/^[Ee]xit( code)?: / {
    sub(/^[^:]*: /, "")
    put(".SH EXIT STATUS")
    put(escape($0))
    in_option = broken = 0
    in_exit = 1
    next
}

# The name of a group of options, of one line or several.
/^ [^ ]/ && !in_exit {
    sub(/^ /, "")
    if (broken) {
        put(".SS " escape($0))
    } else {
        sub(/\n$/, "", body)
        put(" " escape($0))
    }
    in_option = broken = 0
    next
}

{
    if (purpose == "") {
        purpose = $0
        sub(/[,.].*/, "", purpose)
    }
    if (broken && body != "")
        put(".PP")
    sub(/^ +/, "")
    put(escape($0))
    in_option = broken = 0
}

END {
    if (synopsis == "" || body !~ /\n\.TP\n/ || body !~ /\.SH EXIT STATUS/) {
        print "man1.awk: what " name " says of itself is not understood" > "/dev/stderr"
        exit 1
    }
    printf ".TH %s 1 %s \"libnvlxfer %s\"\n.SH NAME\n%s \\- %s\n", toupper(name), date, version, name, tolower(substr(purpose, 1, 1)) substr(purpose, 2)
    printf ".SH SYNOPSIS\n%s.SH DESCRIPTION\n%s.SH SEE ALSO\n.BR nvlxfer (3)\n", synopsis, body
}
