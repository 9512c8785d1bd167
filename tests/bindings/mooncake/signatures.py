# SPDX-License-Identifier: Apache-2.0
"""Names, order and defaults of arguments: those of mooncake.engine of mooncake-transfer-engine 0.3.14.

`signatures.py FOLDER`, of an unpacked wheel of it, compares what is written here with the wheel's own engine.pyi, and
with what pybind tells of the methods if its engine can be imported."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

import nvlxfer.mooncake.engine as ours

HINTS = " transport_hint='' nic_hint=''"
ONE, MANY = "target_hostname buffer peer_buffer_address length", "target_hostname buffers peer_buffer_addresses lengths"
PAGES = "target_hostname src_pages dst_pages fields max_batch_size=0" + HINTS
SCATTER = ("endpoint local_base_addresses local_capacities remote_base_addresses remote_capacities local_offsets "
           "remote_offsets lengths")  # fmt: skip
# A / ends those that have no name for the caller, as in Python.
METHODS = {
    "initialize": "local_hostname metadata_server protocol device_name /",
    "initialize_ext": "local_hostname metadata_server protocol device_name metadata_type /",
    "get_rpc_port": "",
    "allocate_managed_buffer": "length /",
    "free_managed_buffer": "user_tensor length /",
    **{f"transfer_sync_{way}": ONE + HINTS for way in ("write", "read")},
    **{f"batch_transfer_sync_{way}": MANY + HINTS for way in ("write", "read")},
    **{f"batch_transfer_async_{way}": MANY + HINTS for way in ("write", "read")},
    **{f"batch_transfer_{how}_{way}_arrays": MANY + HINTS for way in ("write", "read") for how in ("sync", "async")},
    **{f"batch_transfer_sync_{way}_pages": PAGES for way in ("write", "read")},
    **{f"submit_scatter_{way}": SCATTER for way in ("write", "read")},
    **{f"scatter_transfer_sync_{way}_with_ticket": SCATTER for way in ("write", "read")},
    "transfer_sync": ONE + " opcode notify=None" + HINTS,
    "batch_transfer_sync": MANY + " opcode notify=None" + HINTS,
    "batch_transfer_async": MANY + " opcode" + HINTS,
    **{f"transfer_{way}_on_cuda": ONE + " stream_ptr=0" + HINTS for way in ("write", "read")},
    **{f"batch_transfer_{way}_on_cuda": MANY + " stream_ptr=0" + HINTS for way in ("write", "read")},
    "get_batch_transfer_status": "batch_ids /",
    "transfer_submit_write": ONE + HINTS,
    "transfer_check_status": "batch_id /",
    "write_bytes_to_buffer": "dest_address src_ptr length /",
    "read_bytes_from_buffer": "source_address length /",
    "register_memory": "buffer_addr capacity location='*' remote_accessible=True",
    "unregister_memory": "buffer_addr /",
    "batch_register_memory": "buffer_addresses capacities location='*'",
    "batch_unregister_memory": "buffer_addresses /",
    "get_local_topology": "device_name=None",
    "get_first_buffer_address": "segment_name /",
    "warmup_efa_segment": "segment_name",
    "get_notifies": "",
    "send_probe": "peer_server_name",
    "get_engine": "",
    "get_engine_ptr": "",
}
NAMES = {
    "TransferOpcode", "Read", "Write", "ScatterTransferCompletionStatus", "ScatterTransferTicket", "TransferNotify",
    "InnerTransferEngine", "TransferEngine", "SharedSegment", "ReceivedData", "ReceivedTensor", "RpcInterface",
    "CoroRPCInterface", "create_rpc_client", "create_rpc_server", "SUPPORT_CUDA", "SUPPORT_EFA", "SUPPORT_HIP",
    "SUPPORT_INTRA_NVLINK", "SUPPORT_MNNVL", "SUPPORT_MULTI_PROTOCOL", "SUPPORT_MUSA",
}  # fmt: skip


def of_python(function):
    words, positional = [], False
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if positional and parameter.kind is not parameter.POSITIONAL_ONLY:
            words.append("/")
        positional = parameter.kind is parameter.POSITIONAL_ONLY
        words.append(parameter.name + ("" if parameter.default is parameter.empty else f"={parameter.default!r}"))
    return " ".join(words + ["/"] * positional)


def of_stub(function):
    given = function.args
    names = [argument.arg for argument in given.posonlyargs + given.args][1:]
    defaults = ["=" + ast.unparse(value) for value in given.defaults]
    words = [name + default for name, default in zip(names, [""] * (len(names) - len(defaults)) + defaults)]
    if given.posonlyargs:
        words.insert(len(given.posonlyargs) - 1, "/")
    return " ".join(words)


def of_pybind(function):
    """What its docstring tells: arguments without names are arg0 ..."""
    line = function.__doc__.partition("\n")[0]
    found = re.findall(r"(\w+): [^,()]+?(?:\[[^()]*?\])?(?: = ([^,)]+))?(?=[,)])", line.partition("(")[2])
    return " ".join(name + (f"={default}" if default else "") for name, default in found if name != "self")


assert {name for name in vars(ours.TransferEngine) if name[0] != "_"} == {*METHODS, "TransferOpcode"}
for name, arguments in METHODS.items():
    assert of_python(getattr(ours.TransferEngine, name)) == arguments, name
assert all(hasattr(ours, name) for name in NAMES)
members = {"COMPLETED": 0, "FAILED_DRAINED": -1, "COMPLETION_UNKNOWN": -2}
assert {name: each.value for name, each in ours.ScatterTransferCompletionStatus.__members__.items()} == members
assert {name: int(each) for name, each in ours.TransferOpcode.__members__.items()} == {"Read": 0, "Write": 1}
print(f"ok: {len(METHODS)} methods, {len(NAMES)} names")

if len(sys.argv) > 1:
    tree = ast.parse(Path(sys.argv[1], "mooncake/engine.pyi").read_text())
    classes = {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}
    stubs = {each.name: of_stub(each) for each in classes["TransferEngine"].body if isinstance(each, ast.FunctionDef)}
    del stubs["__init__"]
    assert stubs == METHODS, {name: stubs.get(name) for name in stubs.keys() ^ METHODS.keys()} or [
        (name, stubs[name], METHODS[name]) for name in stubs if stubs[name] != METHODS[name]
    ]
    print(f"ok: so does engine.pyi in {sys.argv[1]}")
    sys.path.insert(0, sys.argv[1])
    try:
        theirs = importlib.import_module("mooncake.engine")
    except ImportError as failure:
        print(f"# its engine cannot be imported here: {failure}")
        sys.exit()
    found = {name: getattr(theirs.TransferEngine, name) for name in dir(theirs.TransferEngine) if name[0] != "_"}
    assert found.keys() == {*METHODS, "TransferOpcode"}, found.keys() ^ METHODS.keys()
    for name, arguments in METHODS.items():
        words = arguments.replace(" /", "").split()
        want = [f"arg{place}" for place in range(len(words))] if arguments.endswith(" /") else words
        assert of_pybind(found[name]).split() == want, (name, found[name].__doc__)
    assert {name for name in dir(theirs) if name[0] != "_"} == NAMES
    assert theirs.TransferOpcode.Write.value == ours.Write and int(theirs.Read) == ours.Read
    print("ok: so does its engine")
