# Runs ctest, and says above its summary what was skipped and why, which ctest alone keeps to itself. Sourced.
# SPDX-License-Identifier: Apache-2.0

# print_skips TEST...: from ctest's log on stdin the lines "SKIP: <reason>", with the name of the test that wrote each; and
# those of the named tests, which were skipped, that gave no reason.
print_skips() {
    awk -v skipped="$*" '
        /^[0-9]+\/[0-9]+ Test: / { name = $3 }
        /^SKIP: / { print "Skipped in " name ": " substr($0, 7); told[name] = 1 }
        END {
            count = split(skipped, names, " ")
            for (i = 1; i <= count; i++)
                if (!(names[i] in told))
                    print "Skipped in " names[i] ": it gave no reason"
            if (count || length(told))
                print ""
        }'
}

# check_words CTEST_ARGUMENT...: fails for a word that is no option, nor the value of the option before it: ctest takes no
# notice of it, and runs all tests.
check_words() {
    local word may_be_value=no
    for word in "$@"; do
        case $word in
        -V | -VV | -Q | -N | -F | -U | --verbose | --extra-verbose | --quiet | --debug | --progress | --rerun-failed | --union | \
            --output-on-failure | --stop-on-failure | --schedule-random | --show-only | --print-labels | --*=*) may_be_value=no ;;
        -*) may_be_value=yes ;;
        *)
            if [[ $may_be_value == no ]]; then
                echo "'$word' is no option of ctest: -R $word runs the tests with that in their names" >&2
                return 2
            fi
            may_be_value=no
            ;;
        esac
    done
}

# run_ctest FOLDER CTEST_ARGUMENT...: fails also for arguments that ctest does not heed, and if no test is what they ask
# for, which ctest itself says.
run_ctest() {
    local folder=$1 line log skipped=()
    shift
    check_words "$@" || return
    log=$folder/Testing/Temporary/LastTest.log
    ctest --test-dir "$folder" --output-on-failure --no-tests=error --parallel "$(nproc)" "$@" 2>&1 </dev/null | while IFS= read -r line; do
        if [[ $line =~ Test\ +#[0-9]+:\ ([^ ]+)\ .*\*\*\*Skipped ]]; then
            skipped+=("${BASH_REMATCH[1]}")
        elif [[ $line =~ ^[0-9]+%\ tests\ passed ]]; then
            # The log grows under the first name and gets the second at its end.
            { cat "$log.tmp" 2>/dev/null || cat "$log"; } | print_skips "${skipped[@]}"
        fi
        printf '%s\n' "$line"
    done || return "${PIPESTATUS[0]}"
}
