#!/usr/bin/env bash
# Faults made on purpose: nvlx_info --doctor names each of them with its remedy, and nothing else. On a sound machine it
# names none. The machine's limits are raised, or lowered, for it; namespaces and other users take root.
# Usage: tests/tools/doctor.sh NVLX_INFO LIBRARY TESTS_FOLDER WITH_CUDA [SANITIZER [BACKEND]]
#        TESTS_FOLDER has isolation, libstub_crash.so, libstub_driver.so, libstub_nvml.so, libstub_glog.so
#        BACKEND      host, or on a machine with GPUs cuda: the doctor then looks at its driver, too
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
with_cuda=$4 sanitizer=${5:-} backend=${6:-host}
work=$(mktemp -d)
owner=
trap '[[ -z $owner ]] || kill -KILL "$owner" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/stub" "$work/broken" "$work/sockets" "$work/plugins"
cp "$1" "$work/bin/nvlx_info"
cp "$2" "$work/bin/libnvlxfer.so.0"
cp "$3/isolation" "$work/bin"
cp "$3/libstub_crash.so" "$3/libstub_glog.so" "$work/bin"
cp "$3/libstub_driver.so" "$work/stub/libcuda.so.1"
cp "$3/libstub_nvml.so" "$work/stub/libnvidia-ml.so.1"
echo "not a library" >"$work/broken/libcuda.so.1"
chmod -R a+rX "$work"
chmod 1777 "$work/sockets"
info=$work/bin/nvlx_info
path=$work/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
unset "${!NVLX_@}" "${!PYTORCH_@}" CUDA_VISIBLE_DEVICES NIXL_PLUGIN_DIR NCCL_MNNVL_ENABLE
export LD_LIBRARY_PATH=$path TMPDIR=$work/sockets
ulimit -n 4096 2>/dev/null || true
failed=0 named=0
other=(setpriv --reuid=65534 --regid=65534 --clear-groups)
mounts=(unshare --mount)
pids=(unshare --pid --fork --mount-proc)
users=(unshare --user --map-root-user)

# In any order: where the machine's own findings come among them is not asked.
in_order() {
    grep -oE '(FAULT|risk) +[a-z_]+' | tr -s ' ' | sort | paste -sd ' '
}

# finds "VERDICT CHECK..." WORDS PREFIX... [-- ARGUMENT...]: the doctor, started behind the prefix, names these and no
# others; the words, a pattern, are in what it says, line breaks aside. The exit code is 1 if there is a fault.
finds() {
    local expected=$1 words=$2 code=0 wanted=0 said
    local -a prefix=() arguments=()
    shift 2
    while (($#)) && [[ $1 != -- ]]; do prefix+=("$1") && shift; done
    (($#)) && arguments=("${@:2}")
    [[ $expected == *FAULT* ]] && wanted=1
    timeout 60 env "${prefix[@]}" "$info" --doctor "${arguments[@]}" >"$work/output" 2>&1 || code=$?
    said=$(grep -oE '^(FAULT|risk) +[a-z_]+' "$work/output" | tr -s ' \n' ' ' | sed 's/ $//' || true)
    named=$((named + 1))
    if [[ $(in_order <<<"$said") != "$(in_order <<<"$expected")" || $code != "$wanted" ]] || ! tr -s ' \n' ' ' <"$work/output" | grep -qE -- "$words"; then
        echo "FAILED: ${prefix[*]} ${arguments[*]}: exit code $code, named '$said', wanted '$expected' and '$words'"
        cat "$work/output"
        failed=1
    fi
}

# can COMMAND...: whether this machine lets us; else the reason is told.
can() {
    "$@" true 2>/dev/null && return
    echo "SKIP: this machine or user may not: $*"
    return 1
}

# ---- A sound machine -----------------------------------------------------------------------------------------------

own_pids=
[[ $(stat -Lc %i /proc/self/ns/pid) == 4026531836 ]] || own_pids="risk pid_namespace"
[[ $(tr -s ' ' </proc/self/uid_map) == " 0 0 4294967295" ]] || own_pids+="${own_pids:+ }risk user_namespace"
machine() { # the faults of the machine that this runs on, then those given
    echo "${own_pids}${own_pids:+${1:+ }}${1:-}"
}
host=(NVLX_BACKEND="$backend")
software=(NVLX_BACKEND=host)
finds "$(machine)" " 0 faults" "${host[@]}"

# ---- The driver and GPUs, by stubs ---------------------------------------------------------------------------------

no_cuda=
[[ $with_cuda == ON ]] || no_cuda="FAULT build"
# What concerns no GPU.
own_checks=$("$info" --checks | awk '$1 == "environment" { own = 1 } own { print $1 }' | paste -sd,)
# gpus "VERDICT CHECK..." WORDS PREFIX...: as finds, of the checks that concern GPUs. A library without CUDA is a fault of its own.
of_gpus=$("$info" --checks | awk '{ print $1 } $1 == "fabric" { exit }' | paste -sd,)
gpus() {
    local expected=$no_cuda${no_cuda:+${1:+ }}$1
    shift
    finds "$expected" "$@" -- --check "$of_gpus"
}
stub=(LD_LIBRARY_PATH="$work/stub:$path")
finds "$no_cuda${own_pids:+${no_cuda:+ }}$own_pids" "ok +gpus .*2 GPUs" "${stub[@]}"
if [[ -n $no_cuda ]]; then
    finds "$no_cuda" "without the cuda backend.* do build it with -DNVLX_CUDA=ON" "${stub[@]}" -- --check build,driver
fi
if ! ldconfig -p | grep 'libcuda\.so\.1' >/dev/null; then
    gpus "FAULT driver" "no NVIDIA driver.* do install.*--gpus all" LD_LIBRARY_PATH="$path"
fi
gpus "FAULT driver" "does not load:.*broken.* do install the driver again" LD_LIBRARY_PATH="$work/broken:$path"
gpus "FAULT driver" "is a stub.* do take the folder of stubs off" "${stub[@]}" STUB_RESULT=34
gpus "FAULT driver_version" "too old: it is for CUDA 11.4.* do install a newer driver" "${stub[@]}" STUB_VERSION=11040
gpus "FAULT gpus" "error 100.* do in a container, start it with --gpus all" "${stub[@]}" STUB_RESULT=100
gpus "FAULT gpus" "SYSTEM_NOT_READY.* do start the fabric manager" "${stub[@]}" STUB_RESULT=802
gpus "FAULT gpus" "error 803.* do .*two versions: restart" "${stub[@]}" STUB_RESULT=803
gpus "FAULT hidden_gpus" 'CUDA_VISIBLE_DEVICES="" hides all GPUs.* do name GPUs' "${stub[@]}" CUDA_VISIBLE_DEVICES=
gpus "FAULT hidden_gpus" "entry 2 names none.* do correct that entry" "${stub[@]}" CUDA_VISIBLE_DEVICES=1,7
gpus "" "shows 1 GPUs, NVML 2" "${stub[@]}" CUDA_VISIBLE_DEVICES=1
gpus "FAULT compute_mode" "GPU 0 .*exclusive process.*; GPU 1 .* do nvidia-smi -i GPU-a0.* -c DEFAULT; nvidia-smi -i GPU-a1" "${stub[@]}" STUB_MODE=3
gpus "FAULT peer_access" "2 of 2 pairs.*behind different PCI.* do see nvidia-smi topo" "${stub[@]}" STUB_ACCESS=0 STUB_P2P=3
gpus "risk nvlink" "1 of 4 links.* do see nvidia-smi nvlink" "${stub[@]}" STUB_DOWN=1
gpus "FAULT mig" "GPU-a0.* is in MIG mode.*; GPU GPU-a1.* do nvidia-smi -i GPU-a0.* -mig 0.*; nvidia-smi -i GPU-a1" "${stub[@]}" STUB_MIG=1
gpus "FAULT fabric" "NCCL_MNNVL_ENABLE=1, but there is no IMEX channel.* do start nvidia-imex" "${stub[@]}" STUB_FABRIC=1 NCCL_MNNVL_ENABLE=1
gpus "FAULT fabric" "has no fabric handles.* do take the variable away" "${stub[@]}" NCCL_MNNVL_ENABLE=1
# One check alone is no verdict on what it could not try.
finds "FAULT share_vmm" "see the checks driver and gpus" "${stub[@]}" STUB_RESULT=100 NVLX_BACKEND=cuda -- --check share_vmm
gpus "FAULT driver" "ended by signal 6.* do look at nvidia-smi, and at the kernel's log" "${stub[@]}" STUB_CRASH=1

# ---- The environment and neighbours --------------------------------------------------------------------------------

finds "$(machine "FAULT environment")" 'NVLX_LOG_LEVEL is "9".* do set NVLX_LOG_LEVEL to 0, 1, 2 or 3.* 1 fault,' "${host[@]}" NVLX_LOG_LEVEL=9
finds "FAULT environment" "NVLX_HOST_GPUS is '65'.* do set NVLX_HOST_GPUS to a number" "${software[@]}" NVLX_HOST_GPUS=65 -- --check environment,identity
finds "FAULT environment" 'NVLX_BACKEND is "gpu".* do set NVLX_BACKEND to auto, cuda or host' NVLX_BACKEND=gpu -- --check environment
# Several at once are all told.
finds "FAULT environment" 'LEVEL is "x"; NVLX_BACKEND is "y"; .*99.* do set NVLX_LOG_LEVEL to .*; set NVLX_BACKEND to .*; set NVLX_HOST_GPUS' \
    NVLX_LOG_LEVEL=x NVLX_BACKEND=y NVLX_HOST_GPUS=99 -- --check environment
finds "FAULT allocator" 'PYTORCH_ALLOC_CONF is .*; XLA_PYTHON.*; TF_GPU_.* do take backend:.* away.*; take TF_GPU_ALLOCATOR away' \
    PYTORCH_ALLOC_CONF=backend:cudaMallocAsync XLA_PYTHON_CLIENT_ALLOCATOR=cuda_async TF_GPU_ALLOCATOR=cuda_malloc_async -- --check allocator
# What takes an engine is not tried then: it would tell the same fault again, as another one.
for wrong in NVLX_HOST_GPUS=99 NVLX_BACKEND=bogus; do
    finds "$(machine "FAULT environment")" "skipped share_pool: ${wrong%=*} is .*: see the check environment.*skipped peer: ${wrong%=*} is " \
        "${software[@]}" "$wrong" -- --peer "$work/none" --check "$own_checks"
done
finds "$(machine "FAULT environment")" "skipped identity: .*skipped socket_folder: .*skipped abstract_address: .*99.*see the check environment" \
    "${software[@]}" NVLX_HOST_GPUS=99
finds "$(machine "FAULT allocator")" "default pool cannot be shared.* do take backend:cudaMallocAsync away" "${host[@]}" \
    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True PYTORCH_ALLOC_CONF=backend:cudaMallocAsync
finds "$(machine)" "its owner calls nvlx_serve" "${host[@]}" PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
finds "$(machine "FAULT allocator")" "XLA_PYTHON_CLIENT_ALLOCATOR.* do take XLA_PYTHON_CLIENT_ALLOCATOR away" "${host[@]}" XLA_PYTHON_CLIENT_ALLOCATOR=cuda_async
finds "$(machine "FAULT nixl_plugin")" "there is no .*libplugin_NVLX.so.* do copy" "${host[@]}" NIXL_PLUGIN_DIR="$work/plugins"
cp "$work/broken/libcuda.so.1" "$work/plugins/libplugin_NVLX.so"
finds "FAULT nixl_plugin" "the plugin does not load.* do what it needs" NIXL_PLUGIN_DIR="$work/plugins" -- --check nixl_plugin
if [[ -z $sanitizer && -e $3/../libplugin_NVLX.so ]]; then # where it is built
    cp "$3/../libplugin_NVLX.so" "$work/plugins/libplugin_NVLX.so"
    finds "" "libplugin_NVLX.so loads" NIXL_PLUGIN_DIR="$work/plugins" -- --check nixl_plugin
fi
if [[ -z $sanitizer ]]; then
    finds "$(machine "FAULT glog")" "two libraries define glog.*stub_glog.* do load one" "${host[@]}" LD_PRELOAD="$work/bin/libstub_glog.so"
fi

# ---- Limits --------------------------------------------------------------------------------------------------------

# limited LIMIT VALUE: as a prefix. A shell sets it, since prlimit may not be there.
limited() {
    printf 'bash\n-c\nulimit %s %s && exec "$@"\n-\n' "$1" "$2"
}
mapfile -t few < <(limited -n 200)
mapfile -t hardly_any < <(limited -n 40)
mapfile -t small < <(limited -v 4000000)
mapfile -t unlocked < <(limited -l 0)
finds "$(machine "risk open_files")" "only 200 files.* do raise RLIMIT_NOFILE" "${host[@]}" "${few[@]}"
finds "FAULT open_files" "only 40 files.* do raise RLIMIT_NOFILE" "${hardly_any[@]}" -- --check open_files
if [[ -z $sanitizer ]]; then
    verdict=risk
    [[ $backend == host ]] || verdict=FAULT
    finds "$(machine "$verdict address_space")" "limited to 3906 MiB.* do take the limit away" "${host[@]}" "${small[@]}"
    # What follows from it is not told again, as other faults.
    finds "$no_cuda${no_cuda:+ }FAULT address_space" "skipped gpus: .*see address_space.*skipped share_vmm: no GPU is shown" \
        "${stub[@]}" STUB_RESULT=2 NVLX_BACKEND=cuda "${small[@]}" -- --check "$of_gpus,address_space,share_vmm"
    finds "FAULT address_space" "limited to 3906 MiB" "${small[@]}" -- --check address_space
fi
if ((EUID)) && [[ -z $sanitizer ]]; then # whose runtime locks nothing
    finds "$(machine "risk locked_memory")" "cannot be locked.* do raise RLIMIT_MEMLOCK" "${host[@]}" "${unlocked[@]}"
fi

# ---- Folders of sockets --------------------------------------------------------------------------------------------

finds "$(machine "FAULT socket_folder")" "No such file or directory.* do make the folder" "${host[@]}" -- --folder "$work/none"
if [[ -z $sanitizer ]]; then # a process that crashes is known at once
    finds "FAULT abstract_address" "process that connects ended without an answer" "${host[@]}" LD_PRELOAD="$work/bin/libstub_crash.so" -- --check abstract_address
fi
finds "FAULT socket_folder" "do an address is absolute, and has 107 bytes" -- --check socket_folder --folder "$work/$(printf 'long%.0s' {1..30})"
mkdir -m 0777 "$work/open"
chmod 0777 "$work/open"
finds "$(machine "risk socket_folder")" "every user can replace files.* do chmod \+t" "${host[@]}" -- --folder "$work/open"
mkdir -m 0555 "$work/closed"
if ((EUID)); then
    finds "$(machine "FAULT socket_folder")" "Permission denied.* do let user" "${host[@]}" -- --folder "$work/closed"
elif can "${other[@]}"; then
    finds "$(machine "FAULT socket_folder")" "Permission denied.* do let user 65534" "${host[@]}" "${other[@]}" -- --folder "$work/closed"
    if [[ -z $sanitizer ]]; then
        finds "$(machine "risk locked_memory")" "cannot be locked.* do raise RLIMIT_MEMLOCK" "${host[@]}" "${other[@]}" "${unlocked[@]}"
    fi
fi

# ---- Namespaces ----------------------------------------------------------------------------------------------------

if ((EUID == 0)) && can "${mounts[@]}"; then
    # hidden TYPE_OPTIONS PLACE COMMANDS: the doctor sees a new file system there, after the commands.
    hidden() {
        printf 'unshare\n--mount\nbash\n-ec\nmount -t tmpfs -o %s tmpfs %s; %s; exec "$@"\n-\n' "$1" "$2" "$3"
    }
    mapfile -t full < <(hidden nr_inodes=1 "$work/closed" true)
    finds "$(machine "FAULT socket_folder")" "No space left.* do make room" "${host[@]}" "${full[@]}" -- --folder "$work/closed"
    mapfile -t read_only < <(hidden ro "$work/closed" true)
    finds "FAULT socket_folder" "Read-only file system.* do " "${read_only[@]}" -- --folder "$work/closed" --check socket_folder
    if [[ -d /dev/shm ]]; then
        mapfile -t full < <(hidden size=4k /dev/shm true)
        finds "$(machine "FAULT shared_memory")" "write /dev/shm.*No space left.* do make room.*--shm-size" "${host[@]}" "${full[@]}"
        mapfile -t read_only < <(hidden ro /dev/shm true)
        finds "$(machine "FAULT shared_memory")" "open /dev/shm.*Read-only.* do mount it" "${host[@]}" "${read_only[@]}"
    fi
    if [[ -z $sanitizer ]]; then # whose runtime needs /proc itself
        mapfile -t no_proc < <(hidden ro /proc true)
        finds "FAULT identity" "cannot tell who this process is.* do mount /proc" "${host[@]}" "${no_proc[@]}" -- --check identity
    fi
    echo "5.15.90.1-microsoft-standard-WSL2" >"$work/release"
    wsl=(unshare --mount bash -ec "mount --bind '$work/release' /proc/sys/kernel/osrelease; exec \"\$@\"" -)
    gpus "FAULT wsl" "this is WSL .*microsoft.* do run on Linux itself" "${stub[@]}" "${wsl[@]}"
    if [[ -d /sys/bus/pci/devices ]]; then
        mapfile -t iommu < <(hidden mode=755 /sys/bus/pci/devices \
            'mkdir -p /sys/bus/pci/devices/0000:10:00.0/iommu_group; echo DMA-FQ >/sys/bus/pci/devices/0000:10:00.0/iommu_group/type')
        gpus "risk iommu" "0000:10:00.0, type DMA-FQ.* do start Linux with iommu=pt" "${stub[@]}" STUB_LINKS=0 "${iommu[@]}"
    fi
fi
if [[ -z $own_pids ]] && ((EUID == 0)) && can "${pids[@]}"; then
    finds "risk pid_namespace" "PID namespace of its own.* do share by file descriptors" "${host[@]}" "${pids[@]}"
fi
if [[ -z $own_pids ]] && can "${users[@]}"; then
    finds "risk user_namespace" "user namespace of its own.* do run both sides in one" "${host[@]}" "${users[@]}"
fi

# ---- Faults of a real driver ---------------------------------------------------------------------------------------

if [[ $backend == cuda ]]; then
    finds "FAULT hidden_gpus" 'CUDA_VISIBLE_DEVICES="" hides all GPUs.* do name GPUs' CUDA_VISIBLE_DEVICES= -- --check "$of_gpus"
    finds "FAULT hidden_gpus" "entry 2 names none.* do correct that entry" CUDA_VISIBLE_DEVICES=0,99 -- --check "$of_gpus"
    finds "" "ok +share_pool.*were read" "${host[@]}" -- --check share_pool
    for stubs in /usr/local/cuda/lib64/stubs /usr/local/cuda/targets/x86_64-linux/lib/stubs; do
        [[ -e $stubs/libcuda.so ]] || continue
        mkdir "$work/toolkit" && cp "$stubs/libcuda.so" "$work/toolkit/libcuda.so.1"
        finds "FAULT driver" "is a stub.* do take the folder of stubs off" LD_LIBRARY_PATH="$work/toolkit:$path" -- --check driver
        break
    done
fi

# ---- Peers ---------------------------------------------------------------------------------------------------------

# serve ADDRESS KIND [PREFIX...]: an engine, by tests/lifetime/isolation.c, until `quit`.
serve() {
    local line address=$1 kind=$2
    shift 2
    coproc OWNER { exec env "${host[@]}" "$@" "$work/bin/isolation" owner "$address" "$kind" 2>/dev/null; }
    owner=$OWNER_PID
    exec 7<&"${OWNER[0]}" 8>&"${OWNER[1]}"
    read -r line <&7
    [[ $line == ready ]] || { echo "FAILED: an owner: $line" && failed=1; }
}
quit() {
    kill -CONT "$owner" 2>/dev/null || true
    (echo >&8) 2>/dev/null || true # in a shell of its own: who is dead does not read, which ends the writer
    exec 7<&- 8>&-
    wait "$owner" 2>/dev/null || true
    owner=
}
peer=(--check peer --peer)
here=$work/sockets/peer
finds "FAULT peer" "no socket file.* do start the engine" "${host[@]}" -- "${peer[@]}" "$here"
finds "FAULT peer" "nobody serves at @nvlx-none.*network namespace.* do start.*hostNetwork" "${host[@]}" -- "${peer[@]}" @nvlx-none
touch "$work/sockets/file"
finds "FAULT peer" "do give the address at which the engine serves" "${host[@]}" -- "${peer[@]}" "$work/sockets/file"
serve "$here" vmm
finds "" "backend $backend, generation.*memory was read, of kind vmm" "${host[@]}" -- --check peer,peer_memory --peer "$here"
kill -STOP "$owner"
finds "FAULT peer" "process $owner, which serves.* is stopped.* do let it go on" "${host[@]}" -- "${peer[@]}" "$here"
if ((EUID == 0)) && can "${other[@]}"; then
    kill -CONT "$owner"
    finds "FAULT peer" "nvlx_connect: .* do let user 65534 write to the socket" "${host[@]}" "${other[@]}" -- "${peer[@]}" "$here"
    inside=(setpriv --reuid=65533 --regid=65533 --clear-groups "${users[@]}")
    if can "${inside[@]}"; then
        finds "FAULT peer" "mode 0600.*is in a user namespace, so the server may know" "${host[@]}" "${inside[@]}" -- "${peer[@]}" "$here"
    fi
    chmod 0666 "$here"
    finds "FAULT peer" "user 65534 .*not among.* do name user 65534 in serve_options.users" "${host[@]}" "${other[@]}" -- "${peer[@]}" "$here"
    # The server knows by another number who is user 0 in a user namespace.
    if can "${inside[@]}"; then
        finds "FAULT peer" "user 65533 .*not among.* do name user 65533 in serve_options.users" "${host[@]}" "${inside[@]}" -- "${peer[@]}" "$here"
    fi
fi
kill -KILL "$owner"
quit
finds "FAULT peer" "a process that ended has left it.* do start the engine that serves again" "${host[@]}" -- "${peer[@]}" "$here"
if [[ -z $own_pids ]] && ((EUID == 0)) && can "${pids[@]}"; then
    rm -f "$here"
    serve "$here" cuda_malloc
    # CUDA does not open it only where the PIDs are equal.
    expected="risk pid_namespace" words="memory was read, of kind cuda_malloc"
    if [[ $backend == host ]]; then
        expected+=" FAULT peer_memory" words="of kind cuda_malloc cannot be read.* do .*another PID namespace"
    fi
    finds "$expected" "$words" "${host[@]}" "${pids[@]}" -- --check "pid_namespace,peer,peer_memory" --peer "$here"
    quit
fi
if ((EUID == 0)) && can unshare --net; then
    serve "@nvlx-doctor-test-$$" vmm
    finds "FAULT peer" "in this network namespace.* do start.*network namespace" "${host[@]}" unshare --net -- "${peer[@]}" "@nvlx-doctor-test-$$"
    quit
fi

# ---- How it is asked -----------------------------------------------------------------------------------------------

# refuses WORDS ARGUMENT...: exit code 2.
refuses() {
    local words=$1 code=0
    shift
    "$info" "$@" >"$work/output" 2>&1 || code=$?
    if [[ $code != 2 ]] || ! grep -q -- "$words" "$work/output"; then
        echo "FAILED: nvlx_info $*: exit code $code" && failed=1
    fi
}
refuses "no check 'peers'" --doctor --check peers
finds "" "ok +identity" "${host[@]}" -- --check "$(printf 'environment,%.0s' {1..60})identity"
refuses "need the option '--doctor'" --check peer
refuses "requires an argument" --doctor --peer
refuses "--folder cannot be ''" --doctor --folder "" --check socket_folder
if command -v python3 >/dev/null; then
    NVLX_BACKEND=host NVLX_LOG_LEVEL=9 "$info" --doctor --json >"$work/output" || true
    python3 -c 'import json, sys
told = json.load(open(sys.argv[1]))
one, = [check for check in told["checks"] if check["verdict"] == "fault"]
assert told["faults"] == 1 and one["check"] == "environment" and one["remedy"] and one["tried"] and "9" in one["came"], told' \
        "$work/output" || failed=1
fi
((failed)) || echo "$named findings, each as it should be"
exit "$failed"
