/* The doctor: what is between the GPUs, and where GPUs cannot share memory. SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/driver.h"
#include "common/nvml.h"
#include "doctor/doctor.h"
#include "doctor/files.h"

/* Whether there are so many GPUs; else there is nothing to try. */
static bool look_for(const struct facts *facts, int gpus, struct finding *finding) {
    if (facts->driver.count >= gpus)
        return true;
    if (facts->driver.count)
        found(finding, VERDICT_SKIPPED, "one GPU is shown, and it takes two");
    else
        found(finding, VERDICT_SKIPPED, "no GPU is shown");
    return false;
}

static int managed_index(const struct facts *facts, int ordinal) {
    const struct nvml_gpu *gpu = nvml_find(&facts->nvml, facts->driver.gpus[ordinal].uuid);
    return gpu ? (int)(gpu - facts->nvml.gpus) : -1;
}

static const char *why_no_access(const struct facts *facts, int from, int to) {
    const int a = managed_index(facts, from), b = managed_index(facts, to);
    return a < 0 || b < 0 ? "not told" : nvml_p2p_text(facts->nvml.p2p[a][b]);
}

static void check_access(const struct doctor *doctor, struct finding *finding) {
    const struct facts *facts = doctor->facts;
    int without = 0, from = 0, to = 0;
    if (!look_for(facts, 2, finding))
        return;
    for (int i = 0; i < facts->driver.count; i++)
        for (int j = 0; j < facts->driver.count; j++)
            if (i != j && facts->driver.peer_access[i][j] == 0 && without++ == 0)
                from = i, to = j;
    if (!without) {
        found(finding, VERDICT_OK, "all of the %d GPUs have access to each other", facts->driver.count);
        return;
    }
    found(finding, VERDICT_FAULT, "%d of %d pairs of GPUs have no peer access: GPU %d to GPU %d; what NVML says: %s",
          without, facts->driver.count * (facts->driver.count - 1), from, to, why_no_access(facts, from, to));
    do_this(finding, "see nvidia-smi topo -m and topo -p2p r. GPUs without NVLink need one PCIe root that lets them "
                     "talk. See the checks nvlink, mig and iommu. In a virtual machine, pass NVSwitches or the fabric "
                     "through as well");
}

static void check_nvlink(const struct doctor *doctor, struct finding *finding) {
    const struct facts *facts = doctor->facts;
    if (!look_for(facts, 1, finding))
        return;
    if (!facts->nvml.library) {
        found(finding, VERDICT_SKIPPED, "NVML is not here: %s", facts->nvml.why);
        return;
    }
    int up = 0, down = 0, gpu = -1;
    for (int i = 0; i < facts->nvml.count; i++) {
        up += facts->nvml.gpus[i].links;
        down += facts->nvml.gpus[i].links_down;
        if (gpu < 0 && facts->nvml.gpus[i].links && facts->nvml.gpus[i].links_down)
            gpu = i;
    }
    if (gpu >= 0) {
        found(finding, VERDICT_RISK, "%d of %d links of GPU %s are down: copies are slower",
              facts->nvml.gpus[gpu].links_down, facts->nvml.gpus[gpu].links + facts->nvml.gpus[gpu].links_down,
              facts->nvml.gpus[gpu].uuid);
        do_this(finding, "see nvidia-smi nvlink -s and -e, and dmesg. Restart nvidia-fabricmanager where there is one, "
                         "and reset the GPU");
    } else if (up) {
        found(finding, VERDICT_OK, "all of the %d links of %d GPUs are up", up, facts->nvml.count);
    } else {
        found(finding, VERDICT_OK, "these GPUs have no NVLink%s: copies go over PCIe", down ? " that is up" : "");
    }
}

static void check_mig(const struct doctor *doctor, struct finding *finding) {
    const struct facts *facts = doctor->facts;
    char remedy[160];
    if (!look_for(facts, 1, finding))
        return;
    for (int i = 0; i < facts->nvml.count; i++) {
        if (facts->nvml.gpus[i].mig != 1)
            continue;
        snprintf(remedy, sizeof remedy, "nvidia-smi -i %s -mig 0, when nobody uses the GPU", facts->nvml.gpus[i].uuid);
        fault_also(finding, remedy, "GPU %s is in MIG mode: its instances have no NVLink and no peer access",
                   facts->nvml.gpus[i].uuid);
    }
    if (finding->verdict == VERDICT_FAULT)
        return;
    found(finding, facts->nvml.library ? VERDICT_OK : VERDICT_SKIPPED, "%s",
          facts->nvml.library ? "no GPU is in MIG mode" : "NVML is not here");
}

/* ---- Around the GPUs ------------------------------------------------------------------------------------ */

/* The type of the IOMMU group of a PCI device: "identity", "DMA", "DMA-FQ"; "" if it is in none. */
static void read_group_type(const char *pci, char *type, size_t size) {
    char path[128], lower[32];
    size_t i = 0;
    for (; pci[i] && i + 1 < sizeof lower; i++)
        lower[i] = (char)tolower((unsigned char)pci[i]);
    lower[i] = '\0';
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group/type", lower);
    if (!file_read(path, type, size))
        type[0] = '\0';
}

static bool has_nvlink(const struct facts *facts, int ordinal) {
    const int index = managed_index(facts, ordinal);
    return index >= 0 && facts->nvml.gpus[index].links;
}

static void check_iommu(const struct doctor *doctor, struct finding *finding) {
    const struct facts *facts = doctor->facts;
    char type[32];
    if (!look_for(facts, 1, finding))
        return;
    for (int i = 0; i < facts->driver.count; i++) {
        read_group_type(facts->driver.gpus[i].pci, type, sizeof type);
        if (strncmp(type, "DMA", 3) || has_nvlink(facts, i))
            continue;
        found(finding, VERDICT_RISK,
              "an IOMMU translates for GPU %d (%s, type %s), which has no NVLink: copies to other GPUs may be slow, "
              "wrong "
              "or hang",
              i, facts->driver.gpus[i].pci, type);
        do_this(finding, "start Linux with iommu=pt, or switch the IOMMU off. Switch ACS off in the PCIe bridges above "
                         "the GPUs (lspci -vvv: ACSCtl), by the firmware's settings or setpci");
        return;
    }
    found(finding, VERDICT_OK, "no IOMMU stands between GPUs that have only PCIe");
}

static void check_wsl(const struct doctor *doctor, struct finding *finding) {
    char release[128];
    (void)doctor;
    if (!file_read("/proc/sys/kernel/osrelease", release, sizeof release))
        found(finding, VERDICT_SKIPPED, "/proc does not tell");
    else if (!strstr(release, "icrosoft"))
        found(finding, VERDICT_OK, "Linux %s", release);
    if (finding->came[0])
        return;
    found(finding, VERDICT_FAULT, "this is WSL (%s), where CUDA does not share memory between processes", release);
    do_this(finding, "run on Linux itself. For tests: NVLX_BACKEND=host");
}

/* ---- Fabric handles ------------------------------------------------------------------------------------- */

/* What of the environment asks a framework for fabric handles; NULL: nothing. */
static const char *who_wants_fabric(void) {
    const char *nccl = getenv("NCCL_MNNVL_ENABLE"), *mooncake = getenv("MC_FORCE_MNNVL");
    const char *nvshmem = getenv("NVSHMEM_CUMEM_HANDLE_TYPE");
    if (nccl && !strcmp(nccl, "1"))
        return "NCCL_MNNVL_ENABLE=1";
    if (mooncake && *mooncake && strcmp(mooncake, "0"))
        return "MC_FORCE_MNNVL";
    return nvshmem && !strcmp(nvshmem, "FABRIC") ? "NVSHMEM_CUMEM_HANDLE_TYPE=FABRIC" : NULL;
}

static void check_fabric(const struct doctor *doctor, struct finding *finding) {
    const struct facts *facts = doctor->facts;
    static const char channel[] = "/dev/nvidia-caps-imex-channels/channel0";
    const char *who = who_wants_fabric();
    if (!look_for(facts, 1, finding))
        return;
    const bool handles = facts->driver.gpus[0].fabric > 0, channels = access(channel, R_OK | W_OK) == 0;
    if (!who) {
        found(finding, VERDICT_OK, "nothing here asks for fabric handles. GPU 0 %s them, and there is %s IMEX channel",
              handles ? "has" : "does not have", channels ? "an" : "no");
    } else if (handles && channels) {
        found(finding, VERDICT_OK, "%s, GPU 0 has fabric handles, and there is an IMEX channel", who);
    } else if (!handles) {
        found(finding, VERDICT_FAULT, "%s, but GPU 0 has no fabric handles", who);
        do_this(finding, "take the variable away: within one machine, file descriptors do the same");
    } else {
        found(finding, VERDICT_FAULT, "%s, but there is no IMEX channel (%s): no fabric handle can be exported", who,
              channel);
        do_this(finding, "start nvidia-imex, and make a channel (the module's option NVreg_CreateImexChannel0=1); give "
                         "/dev/nvidia-caps-imex-channels to the container. Or take the variable away: within one "
                         "machine, file descriptors do the same");
    }
}

const struct check checks_of_links[] = {
    {"peer_access", "whether each GPU has access to each other one", check_access, true},
    {"nvlink", "whether all links are up", check_nvlink, true},
    {"mig", "whether a GPU is cut into instances (MIG)", check_mig, true},
    {"iommu", "whether an IOMMU stands between GPUs that have only PCIe", check_iommu, true},
    {"wsl", "whether this is the Windows Subsystem for Linux", check_wsl, true},
    {"fabric", "whether fabric handles can be had, if the environment asks for them", check_fabric, true},
    {NULL, NULL, NULL, false}};
