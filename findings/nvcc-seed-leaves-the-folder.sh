#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# nvcc's -frandom-seed does not make its output the same: names have the folder in them, objects the
# process.
#
# Versions: nvidia-cuda-nvcc, nvidia-nvvm, nvidia-cuda-crt, nvidia-cuda-runtime 13.5.37; g++ 12.2.
# Expected: nvcc --help says of -frandom-seed that it takes the place of random numbers in names, and
#   that identical PTX and object files can be made with it.
# Seen 2026-11-29: one file with a kernel in an unnamed namespace, compiled with -frandom-seed=7 in
#   two folders, gives PTX that differs: the kernel's name has a number made of the folder, with the
#   option and without. In one folder PTX is the same in each run, but the object is not: it names a
#   temporary file, which has nvcc's process id in it. -ffile-prefix-map for g++ changes neither.
# Matters: a library with kernels cannot be built twice to the same bytes, and a cache of compiled
#   kernels that is keyed by their content misses in each other checkout. Kernels with names of their
#   own (extern "C", or a named namespace) have the same name everywhere.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v g++ >/dev/null || exit 77

timeout 100 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" nvidia-cuda-nvcc==13.5.37 nvidia-nvvm==13.5.37 nvidia-cuda-crt==13.5.37 \
  nvidia-cuda-runtime==13.5.37 >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }
cuda=$work/site/nvidia/cu13

mkdir "$work/one" "$work/two"
cat >"$work/one/k.cu" <<'EOF'
namespace {
__global__ void fill(int *out, int value) { out[threadIdx.x] = value; }
}
int launch(int *out) {
    fill<<<1, 32>>>(out, 7);
    return 0;
}
EOF
cp "$work/one/k.cu" "$work/two"

# compile FOLDER RESULT OPTION...: in that folder, by the file's bare name
compile() {
    (cd "$work/$1" && timeout 60 "$cuda/bin/nvcc" -arch=sm_90 -I"$cuda/include" -frandom-seed=7 \
        -Xcompiler "-ffile-prefix-map=$work/$1=." "${@:3}" k.cu -o "$2")
}

compare() {
    if cmp -s "$2" "$3"; then
        echo "$1: the same"
    else
        echo "$1: different"
    fi
}

compile one a.ptx -ptx
compile one b.ptx -ptx
compile two a.ptx -ptx
compile one a.o -c
compile one b.o -c
{
    compare "PTX, one folder, two runs" "$work/one/a.ptx" "$work/one/b.ptx"
    compare "PTX, two folders" "$work/one/a.ptx" "$work/two/a.ptx"
    compare "object, one folder, two runs" "$work/one/a.o" "$work/one/b.o"
    for folder in one two; do # each number is made of something
        sed -nE 's/^\.entry .*_GLOBAL__N__([0-9a-f]+)_.*/\1/p' "$work/$folder/a.ptx"
    done | sort -u | wc -l | sed 's/$/ numbers in the names of the kernel/'
    for run in a b; do
        grep -aoE 'tmpxft_[0-9a-f]+' "$work/one/$run.o" | sort -u
    done | sort -u | wc -l | sed 's/$/ names of temporary files in two objects/'
} | tee "$work/seen"

diff "$work/seen" - <<'EOF'
PTX, one folder, two runs: the same
PTX, two folders: different
object, one folder, two runs: different
2 numbers in the names of the kernel
2 names of temporary files in two objects
EOF
echo "as stated"
