#!/usr/bin/env bash
# nvlx_info --nixl: fake packages of Python with fake wheels of NIXL, with and without the plugin. Each verdict, with its
# reason and remedy; the order of folders; the exit codes.
# Usage: tests/tools/info_nixl.sh NVLX_INFO PLUGIN LIBRARY NIXL OTHER_NIXL CRASH
#   NIXL, OTHER_NIXL  stand for libnixl.so, with the table of functions that the plugin knows, and with another
#   CRASH             a plugin that crashes when it is asked, or loaded (stub_plugin.c)
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
mapfile -t files < <(realpath -s "$@")
info=${files[0]} plugin=${files[1]} library=${files[2]} nixl=${files[3]} other_nixl=${files[4]} crash=${files[5]}
work=$(realpath "$(mktemp -d)")
trap 'rm -rf "$work"' EXIT
unset STUB_PLUGIN VIRTUAL_ENV NIXL_PLUGIN_DIR NIXL_CONFIG_FILE NVLX_NIXL_ANY_VERSION
export HOME=$work/home NVLX_BACKEND=host
mkdir "$HOME" "$work/empty"
cd "$work/empty" # where no loader finds anything
tried=0

fail() {
    echo "$1"
    cat "$work/output" "$work/errors"
    exit 1
}

# run CODE ARGUMENT...: what `nvlx_info --nixl ARGUMENT...` prints is in output and errors.
run() {
    local expected=$1 code=0
    shift
    "$info" --nixl "$@" >"$work/output" 2>"$work/errors" || code=$?
    [[ $code == "$expected" ]] || fail "nvlx_info --nixl $*: exit code $code, not $expected"
    [[ $code == 2 || ! -s $work/errors ]] || fail "nvlx_info --nixl $* writes to stderr"
    tried=$((tried + 1))
}

# says LINE...: each is a whole line of the output, in this order, without the blanks before it.
says() {
    local line text
    text=$(sed -E 's/^ *(- )?//' "$work/output")
    for line in "$@"; do
        grep -qxE -- "$line" <<<"$text" || fail "no line '$line', or not in this order"
        text=$(awk -v line="$line" 'found { print } !found && $0 ~ "^(" line ")$" { found = 1 }' <<<"$text")
    done
}

# wheel SITE PACKAGE VERSION [NIXL]: what of NIXL's wheel is looked at.
wheel() {
    local libraries=$1/.$2.mesonpy.libs
    mkdir -p "$libraries/plugins" "$1/$2-$3.dist-info"
    cp "${4:-$nixl}" "$libraries/libnixl.so"
    cp "${4:-$nixl}" "$libraries/plugins/libplugin_UCX.so"
    printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "$2" "$3" >"$1/$2-$3.dist-info/METADATA"
}

# site NAME PACKAGE VERSION [NIXL]: a folder of packages that has this wheel, with the plugin: its path is in $site.
site() {
    site=$work/$1/site-packages
    wheel "$site" "${@:2}"
    folder=$site/.$2.mesonpy.libs/plugins
    cp "$plugin" "$folder/libplugin_NVLX.so"
}

# ---- What is there -----------------------------------------------------------------------------------------

run 1 "$work/empty"
says "folder: $work/empty" "plugin there: no" "why not: there is no $work/empty/libplugin_NVLX.so" "remedy: copy .*" "works: no"
mkdir -p "$work/none/site-packages"
run 1 "$work/none/site-packages"
says "places: none" "works: no" "why not: there is no NIXL: .*" "remedy: install one of them, .*"

site known nixl_cu12 1.5.1
run 0 "$site"
says "packages:" "folder: $site" "nvlxfer nixl: -" "folder: $folder" "from: nixl-cu12 in $site \(given\)" \
    "nixl: $site/.nixl_cu12.mesonpy.libs/libnixl.so" "nixl version: 1.5.1" "looked in: yes" "plugin there: yes" "loads: yes" \
    "library: $(realpath "$library")" "library version: $("$info" --version | grep -oE '[0-9.]+$')" "nixl accepted: yes" \
    "works: yes" "works: yes"
site oldest nixl_cu13 1.0.0
run 0 "$site"
says "from: nixl-cu13 in .*" "nixl version: 1.0.0" "nixl accepted: yes" "works: yes"
rm "$folder/libplugin_NVLX.so"
run 1 "$site"
says "plugin there: no" "loads: -" "nixl accepted: -" "works: no" "why not: there is no $folder/libplugin_NVLX.so" \
    "remedy: install the wheel nvlxfer-nixl where nixl-cu13 is \($site\), .*" "works: no"
mkdir "$site/nvlxfer_nixl-0.9.dist-info"
echo 'Version: 0.9' >"$site/nvlxfer_nixl-0.9.dist-info/METADATA"
run 1 "$site"
says "nvlxfer nixl: 0.9"

# The wheel nvlxfer-nixl has folders of both of NIXL's packages, which does not make them be there.
site alone nixl_cu12 1.5.1
rm -r "$site/.nixl_cu12.mesonpy.libs/libnixl.so" "$site"/nixl_cu12-*
run 1 "$site"
says "places: none" "why not: there is no NIXL: .*"

# ---- Which NIXL --------------------------------------------------------------------------------------------

site newer nixl_cu12 1.6.0
run 1 "$site"
says "nixl version: 1.6.0" "loads: yes" "nixl accepted: no" "works: no" "why not: the plugin refuses this NIXL: .*NIXL 1.6.0 .*1.0 to 1.5.*" \
    "remedy: install a NIXL that the plugin knows, .*"
NVLX_NIXL_ANY_VERSION=1 run 0 "$site"
says "nixl accepted: yes" "plugin says: .*NIXL 1.6.0 .*tried all the same.*" "works: yes"
site older nixl_cu12 0.10.1
run 1 "$site"
says "nixl version: 0.10.1" "nixl accepted: no" "works: no"
site another nixl_cu12 1.5.1 "$other_nixl"
run 1 "$site"
says "nixl accepted: no" "why not: .* has a table of 240 bytes .*"
site broken nixl_cu12 1.5.1
echo "not a library" >"$site/.nixl_cu12.mesonpy.libs/libnixl.so"
run 1 "$site"
says "loads: yes" "nixl accepted: -" "works: no" "why not: NIXL itself does not load: .*libnixl.so: file too short" "remedy: install nixl-cu12 again, .*"
cp "$crash" "$site/.nixl_cu12.mesonpy.libs/libnixl.so"
STUB_PLUGIN=1 run 1 "$site"
says "loads: no" "why not: NIXL itself does not load: .* ended by signal .*" "remedy: install nixl-cu12 again, .*"
mkdir -p "$work/meson/lib"
cp -r "$work/known/site-packages/.nixl_cu12.mesonpy.libs/." "$work/meson/lib"
run 1 "$work/meson/lib"
says "from: NIXL in $work/meson/lib" "nixl version: -" "nixl accepted: no" "why not: .* lies in no wheel.*"

# ---- Which plugin ------------------------------------------------------------------------------------------

site text nixl_cu12 1.5.1
echo "not a library" >"$folder/libplugin_NVLX.so"
run 1 "$site"
says "plugin there: yes" "loads: no" "works: no" "why not: the plugin does not load: .*" "remedy: put a libplugin_NVLX.so of a whole build .*"
cp "$nixl" "$folder/libplugin_NVLX.so"
run 1 "$site"
says "loads: no" "why not: .* has no nixl_plugin_init"
cp "$crash" "$folder/libplugin_NVLX.so"
run 1 "$site"
says "plugin there: yes" "loads: no" "why not: the plugin does not load: .* ended by signal .*" "remedy: put a .*"
site later nixl_cu12 1.5.1
LC_ALL=C sed 's/GLIBC_2/GLIBC_9/g' "$plugin" >"$folder/libplugin_NVLX.so"
run 1 "$site"
says "loads: no" "why not: .* version .GLIBC_9.* not found.*" "remedy: take a plugin .* system as old as this one, .*"

# nvlx_info has the library loaded itself: that must not help a plugin which does not find it.
site lost nixl_cu12 1.5.1
there=$(dirname "$library")
LC_ALL=C sed "s|$there|${there//?/_}|g" "$plugin" >"$folder/libplugin_NVLX.so"
LD_LIBRARY_PATH='' run 1 "$site"
says "loads: no" "library: -" "why not: .*libnvlxfer.so.0: cannot open.*" "remedy: let the loader find libnvlxfer.so.0: .*"
code=0
LD_LIBRARY_PATH='' NIXL_PLUGIN_DIR=$folder "$info" --doctor --check nixl_plugin >"$work/output" || code=$?
if [[ $code != 1 ]] || ! grep -q 'libnvlxfer.so.0: cannot open' "$work/output"; then
    fail "the doctor does not see that it does not load"
fi
mkdir "$work/lib"
cp "$library" "$work/lib/libnvlxfer.so.0"
LD_LIBRARY_PATH=$work/lib run 0 "$site"
says "loads: yes" "library: $work/lib/libnvlxfer.so.0" "works: yes"
if ((EUID)); then
    site closed nixl_cu12 1.5.1
    chmod 0 "$folder"
    run 1 "$site"
    chmod 755 "$folder"
    says "plugin there: no" "why not: .* cannot be reached: Permission denied" "remedy: let this user read .*"
fi

# ---- What the environment names ----------------------------------------------------------------------------

known=$work/known/site-packages own=$work/known/site-packages/.nixl_cu12.mesonpy.libs/plugins
mkdir "$work/plugins" "$work/bare"
cp "$plugin" "$work/plugins/libplugin_NVLX.so"
NIXL_PLUGIN_DIR=$work/empty run 1 "$known"
says "folder: $work/empty" "from: NIXL_PLUGIN_DIR" "nixl version: 1.5.1" "looked in: yes" "plugin there: no" \
    "remedy: take NIXL_PLUGIN_DIR away: the plugin is in $own" "folder: $own" "looked in: no" "plugin there: yes" "loads: -" \
    "works: no" "why not: NIXL looks only in the folder that NIXL_PLUGIN_DIR names" "works: no"
NIXL_PLUGIN_DIR='' run 1 "$known"
says "from: NIXL_PLUGIN_DIR" "plugin there: no" "why not: NIXL_PLUGIN_DIR names no folder: .*"
wheel "$work/bare" nixl_cu12 1.5.1
NIXL_PLUGIN_DIR=$work/plugins run 0 "$work/bare"
says "folder: $work/plugins" "nixl version: 1.5.1" "nixl accepted: yes" "works: yes" "looked in: no" "plugin there: no" "works: yes"
NIXL_PLUGIN_DIR=$work/empty run 1 "$work/bare"
says "remedy: copy libplugin_NVLX.so there, or let NIXL_PLUGIN_DIR name .*"
NIXL_PLUGIN_DIR=$work/plugins VIRTUAL_ENV=$work/none run 0
says "folder: $work/plugins" "from: NIXL_PLUGIN_DIR" "nixl: -" "nixl accepted: -" "works: yes"

printf '# of NIXL\nNIXL_PLUGIN_DIR = "%s" # there\n' "$work/empty" >"$HOME/.nixl.cfg"
run 1 "$known"
says "folder: $work/empty" "from: NIXL_PLUGIN_DIR in $HOME/.nixl.cfg" "plugin there: no" "folder: $own" "looked in: no"
echo "NIXL_PLUGIN_DIR = '$work/plugins'" >"$work/nixl.cfg"
NIXL_CONFIG_FILE=$work/nixl.cfg run 0 "$known"
says "folder: $work/plugins" "from: NIXL_PLUGIN_DIR in $work/nixl.cfg" "works: yes" "folder: $own" "looked in: no"
NIXL_PLUGIN_DIR=$own NIXL_CONFIG_FILE=$work/nixl.cfg run 0 "$known"
says "folder: $own" "from: NIXL_PLUGIN_DIR" "works: yes"
site early nixl_cu12 1.1.0 # which reads no such file
run 0 "$site"
says "folder: $folder" "looked in: yes" "works: yes"
rm "$HOME/.nixl.cfg"

# ---- Where it looks by itself ------------------------------------------------------------------------------

environment=$work/environment/lib/python3.12/site-packages
wheel "$environment" nixl_cu12 1.5.1
cp "$plugin" "$environment/.nixl_cu12.mesonpy.libs/plugins/libplugin_NVLX.so"
wheel "$environment" nixl_cu13 1.4.0
mkdir "$work/environment/bin"
printf 'home = %s/base/bin\ninclude-system-site-packages = false\n' "$work" >"$work/environment/pyvenv.cfg"
base=$work/base/lib/python3.12/site-packages
wheel "$base" nixl_cu12 1.4.1
mkdir "$work/base/bin"
printf '#!/bin/sh\nexit 9\n' >"$work/base/bin/python3.12"
chmod +x "$work/base/bin/python3.12"
ln -s python3.12 "$work/base/bin/python3"
ln -s ../../base/bin/python3 "$work/environment/bin/python3"
user=$HOME/.local/lib/python3.12/site-packages
wheel "$user" nixl_cu12 1.3.0
wheel "$HOME/.local/lib/python3.11/site-packages" nixl_cu12 1.2.0

VIRTUAL_ENV=$work/environment run 0
says "folder: $environment" "from: of VIRTUAL_ENV" "places:" "nixl version: 1.5.1" "works: yes" "from: nixl-cu13 in .*" "nixl version: 1.4.0" \
    "plugin there: no" "works: no" "works: yes"
cp "$work/output" "$work/by_variable"
PATH=$work/environment/bin:$PATH run 0
diff <(sed 's/of VIRTUAL_ENV/of python3 on PATH/' "$work/by_variable") "$work/output" || fail "the environment of python3 on PATH is another one"
run 0 "$work/environment"
says "folder: $environment" "from: of an environment that is given"
PATH=$work/base/bin:$PATH run 1
says "folder: $user" "from: of the user" "folder: $base" "from: of python3 on PATH" "places:" "nixl version: 1.3.0" "looked in: yes" \
    "nixl version: 1.4.1" "looked in: no" "why not: Python takes nixl-cu12 of $user, which comes before"
! grep -q 'python3.11' "$work/output" || fail "packages of another Python were looked at"
sed -i 's/false/true/' "$work/environment/pyvenv.cfg"
VIRTUAL_ENV=$work/environment PATH=$work/environment/bin:$PATH run 0
says "folder: $environment" "folder: $user" "folder: $base" "from: of the Python that the environment was made by"
! grep -q 'python3.11' "$work/output" || fail "packages of another Python than the environment's were looked at"
mv "$HOME/.local" "$work/other"
mkdir -p "$work/base/lib/python3/dist-packages"
PATH=$work/base/bin:$PATH run 1
says "folder: $base" "folder: $work/base/lib/python3/dist-packages" "nixl version: 1.4.1"

# ---- What is given -----------------------------------------------------------------------------------------

run 0 "$own"
says "folder: $own" "from: NIXL in .*" "nixl version: 1.5.1" "nixl accepted: yes"
run 1 "$work/bare/.nixl_cu12.mesonpy.libs"
says "from: NIXL in .*" "nixl version: 1.5.1" "remedy: install the wheel nvlxfer-nixl where nixl-cu12 is \($work/bare\), .*"
run 0 "$work/empty" "$work/plugins"
says "folder: $work/empty" "works: no" "folder: $work/plugins" "from: given" "nixl: -" "works: yes" "works: yes"
run 2 "$work/plugins" "$work/not_there"
grep -q "no folder '$work/not_there'" "$work/errors" || fail "the wrong folder is not named"
[[ ! -s $work/output ]] || fail "a wrong folder goes to stdout"
run 2 "$work/nixl.cfg"
grep -q "no folder '$work/nixl.cfg'" "$work/errors" || fail "a file is taken for a folder"
run 2 --doctor
grep -q -- "--nixl cannot be with '--doctor'" "$work/errors" || fail "--doctor is not refused"
run 2 --peer @nobody
grep -q -- "--peer.* need" "$work/errors" || fail "--peer is not refused"
code=0
"$info" --nixl "$known" >/dev/full 2>"$work/errors" || code=$?
[[ $code == 4 ]] || fail "nvlx_info --nixl >/dev/full: exit code $code, not 4"

NIXL_PLUGIN_DIR=$work/empty run 1 --json "$known"
if command -v python3 >/dev/null; then
    python3 - "$work/output" "$work/empty" "$own" <<'END' || fail "the JSON is not as it should be"
import json, sys
told = json.load(open(sys.argv[1]))
first, second = told["places"]
assert told["works"] is False and [site["nvlxfer_nixl"] for site in told["packages"]] == [None]
assert first["folder"] == sys.argv[2] and first["looked_in"] is True and first["loads"] is None and first["remedy"]
assert second["folder"] == sys.argv[3] and second["looked_in"] is False and second["plugin_there"] is True
assert first["nixl_version"] == second["nixl_version"] == "1.5.1" and "remedy" not in second
END
fi
echo "nvlx_info --nixl tells what it should: $tried runs"
