# Packages of the package index, for tests that use them. Sourced, with `cache` set to a folder.
# SPDX-License-Identifier: Apache-2.0

# shellcheck disable=SC2154 # the scripts that source this set `cache`

# Makes the environment whose pip fetches, once. Fails where there can be none.
prepare_fetch() {
    mkdir -p "$cache"
    [[ -d $cache/python ]] || python3 -m venv "$cache/python" >"$cache/python.log" 2>&1
}

# fetch NAME PACKAGE: unpacks it to CACHE/NAME, once. Fails where it cannot be had.
fetch() {
    [[ -d $cache/$1 ]] && return
    rm -rf "$cache/$1.new"
    "$cache/python/bin/pip" install --quiet --disable-pip-version-check --timeout 10 --retries 2 --no-deps --no-compile \
        --target "$cache/$1.new" "$2" >"$cache/$1.log" 2>&1 &&
        mv "$cache/$1.new" "$cache/$1"
}
