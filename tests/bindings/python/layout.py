# SPDX-License-Identifier: Apache-2.0
"""Prints a C program that compares the structs, codes and constants of nvlxfer.py with those of the header."""

import ctypes
import sys
import nvlxfer as n

path = sys.argv[1]
header = open(path).read()
structs = {
    "nvlx_config": n._Config,
    "nvlx_alloc_options": n._AllocOptions,
    "nvlx_region_options": n._RegionOptions,
    "nvlx_transfer_options": n._TransferOptions,
    "nvlx_serve_options": n._ServeOptions,
    "nvlx_request_info": n._RequestInfo,
    "nvlx_engine_info": n._EngineInfo,
    "nvlx_region_info": n._RegionInfo,
    "nvlx_op": n._Op,
    "nvlx_rows": n._Rows,
    "nvlx_event": n._Event,
}
constants = {f"NVLX_{name}": -index for index, name in enumerate(n._NAMES) if name}
constants.update({f"NVLX_BACKEND_{value.name}": value for value in n.Backend})
constants.update({f"NVLX_MECHANISM_{value.name}": value for value in n.Mechanism})
constants.update({f"NVLX_ACCESS_{value.name}": value for value in n.Access})
constants.update(NVLX_ALLOC_VMM=n.Alloc.VMM, NVLX_ALLOC_POOL=n.Alloc.POOL, NVLX_NO_MAP=n._NO_MAP)
constants.update(NVLX_VERIFY=n._VERIFY)
constants.update({f"NVLX_EVENT_{value.name}": value for value in n.EventKind})
constants.update(NVLX_EVENT_REQUEST_DONE=n._REQUEST_DONE, NVLX_DONE_EVENT=n._DONE_EVENT)
constants.update(NVLX_OP_READ=n._READ, NVLX_OP_WRITE=n._WRITE, NVLX_OP_ROWS=n._ROWS)
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
print(f'if (codes != {len(n._NAMES) - 1}) wrong = 1, printf("there are %d codes\\n", codes);')
print(f'return wrong || printf("{len(equal)} layouts and constants are those of nvlxfer.h\\n") < 0;\n}}')
