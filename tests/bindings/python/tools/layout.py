# SPDX-License-Identifier: Apache-2.0
"""Prints a C program that compares the structs, codes and constants of the package nvlxfer with those of the header."""

import ctypes
import sys
import nvlxfer as n
from nvlxfer import errors
from nvlxfer._c import native

path = sys.argv[1]
header = open(path).read()
structs = {
    "nvlx_config": native._Config,
    "nvlx_alloc_options": native._AllocOptions,
    "nvlx_region_options": native._RegionOptions,
    "nvlx_transfer_options": native._TransferOptions,
    "nvlx_serve_options": native._ServeOptions,
    "nvlx_request_info": native._RequestInfo,
    "nvlx_engine_info": native._EngineInfo,
    "nvlx_counts": native._Counts,
    "nvlx_region_info": native._RegionInfo,
    "nvlx_peer_info": native._PeerInfo,
    "nvlx_op": native._Op,
    "nvlx_wait_options": native._WaitOptions,
    "nvlx_rows": native._Rows,
    "nvlx_block_region": native._BlockRegion,
    "nvlx_blocks_options": native._BlocksOptions,
    "nvlx_block_ids": native._BlockIds,
    "nvlx_event": native._Event,
    "nvlx_relay_part": native._RelayPart,
    "nvlx_relay_options": native._RelayOptions,
    "nvlx_relay_info": native._RelayInfo,
}
constants = {f"NVLX_{name}": -index for index, name in enumerate(errors._NAMES) if name}
constants.update({f"NVLX_BACKEND_{value.name}": value for value in n.Backend})
constants.update({f"NVLX_MECHANISM_{value.name}": value for value in n.Mechanism})
constants.update({f"NVLX_ACCESS_{value.name}": value for value in n.Access})
constants.update({f"NVLX_KIND_{value.name}": value for value in n.Kind})
constants.update(NVLX_ALLOC_VMM=n.Alloc.VMM, NVLX_ALLOC_POOL=n.Alloc.POOL, NVLX_NO_MAP=native._NO_MAP)
constants.update(NVLX_VERIFY=native._VERIFY, NVLX_IDS_ON_GPU=native._IDS_ON_GPU)
constants.update({f"NVLX_EVENT_{value.name}": value for value in n.EventKind})
constants.update(NVLX_EVENT_REQUEST_DONE=native._REQUEST_DONE, NVLX_DONE_EVENT=native._DONE_EVENT)
constants.update(NVLX_OP_READ=native._READ, NVLX_OP_WRITE=native._WRITE, NVLX_OP_ROWS=native._ROWS)
constants.update(NVLX_OP_SIGNAL=native._SIGNAL, NVLX_OP_ADD=native._ADD)
constants.update(NVLX_OP_WAIT_READY=native._WAIT_READY)
constants.update({"(uintptr_t)NVLX_STREAM_LEGACY": n.STREAM_LEGACY})
constants.update({"(uintptr_t)NVLX_STREAM_PER_THREAD": n.STREAM_PER_THREAD})
equal = {name: int(value) for name, value in constants.items()}
for name, struct in structs.items():
    if f"struct {name} {{" not in header:
        assert name == "nvlx_serve_options", name
        continue
    for field, *_ in struct._fields_:
        place = getattr(struct, field)
        equal[f"offsetof(struct {name}, {field})"] = place.offset
        equal[f"sizeof ((struct {name} *)0)->{field}"] = place.size
    equal[f"sizeof(struct {name})"] = ctypes.sizeof(struct)
print(f'#include "{path}"\n#include <stdio.h>\nint main(void) {{\nint wrong = 0;')
for what, value in equal.items():
    print(f'if ((long long)({what}) != {value}) wrong = 1, printf("%s is not {value}\\n", "{what}");')
print("int codes = 0;\n#define COUNT(name, value, text) codes++;\nNVLX_ERRORS(COUNT)")
print(f'if (codes != {len(errors._NAMES) - 1}) wrong = 1, printf("there are %d codes\\n", codes);')
print(f'return wrong || printf("{len(equal)} layouts and constants are those of nvlxfer.h\\n") < 0;\n}}')
