# What ./examples/run, ./tests/run and .ci/run share: installs what is missing, builds. Sourced by them, with `root` set to
# the top of the tree.
# SPDX-License-Identifier: Apache-2.0

# A Debian or Ubuntu package of each need, and a command that tells whether it is met already, however it got there.
needs_to_build=(
    cmake 'command -v cmake'
    gcc 'command -v gcc'
    g++ 'command -v g++'
    make 'command -v make'
    pkg-config 'command -v pkg-config'
    libgoogle-glog-dev 'pkg-config --exists libglog'
    libjsoncpp-dev 'pkg-config --exists jsoncpp'
    uthash-dev 'echo "#include <uthash.h>" | gcc -E -'
)
# shellcheck disable=SC2034 # the scripts that source this use it
needs_to_test=("${needs_to_build[@]}" libcmocka-dev 'pkg-config --exists cmocka')

# say WORDS: to stderr, so that stdout belongs to the program that is run.
say() {
    echo "nvlxfer: $*" >&2
}

# quietly LOG COMMAND: the command's output goes to a file, which is shown if it fails.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        say "failed: $* (the output above is also in $log)"
        return 1
    fi
}

# install_missing PACKAGE CHECK...: installs the packages whose check fails.
install_missing() {
    local missing=() log sudo=()
    while (($#)); do
        if ! bash -c "$2" >/dev/null 2>&1 </dev/null &&
            [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) != installed ]]; then
            missing+=("$1")
        fi
        shift 2
    done
    ((${#missing[@]})) || return 0

    local command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        say "missing: ${missing[*]} (names of Debian's packages). This system has no apt-get: please install them."
        return 1
    elif ((EUID != 0)) && ! command -v sudo >/dev/null; then
        say "missing: ${missing[*]}. You are not root and there is no sudo: please run as root"
        say "    $command"
        return 1
    elif ((EUID != 0)); then
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    log=$(mktemp)
    quietly "$log" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive bash -c "
        apt-get -o DPkg::Lock::Timeout=300 update &&
        apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends ${missing[*]}" || {
        say "by hand it would be: $command"
        return 1
    }
    rm -f "$log"
}

# build_in FOLDER CMAKE_ARGUMENT...: configures and builds there.
build_in() {
    local folder=$1 generator=()
    shift
    mkdir -p "$folder"
    if [[ ! -f $folder/CMakeCache.txt ]] && command -v ninja >/dev/null; then
        generator=(-G Ninja)
    fi
    say "building in ${folder#"$root/"}"
    quietly "$folder/configure.log" cmake -S "$root" -B "$folder" "${generator[@]}" "$@" || return
    quietly "$folder/build.log" cmake --build "$folder" --parallel "$(nproc)" || return
    say "$(sed -n 's/^-- \(The cuda backend: .*\)/\1/p' "$folder/configure.log")"
}
