# SPDX-License-Identifier: Apache-2.0
"""Imports packages in the order given, does a piece of work with each in that order, and ends with all of it open.

Usage: orders.py [--global] NAME...    of nvlxfer, nixl, mooncake
  --global  their libraries find each other's symbols, and the program initialises Mooncake's glog
"""

import ctypes
import logging.handlers
import os
import sys
import time

LENGTH = 1 << 20
PATTERN = bytes(index * 7 % 251 for index in range(4096)) * (LENGTH // 4096)
left_open = []
records = logging.handlers.MemoryHandler(1 << 20, flushLevel=logging.CRITICAL + 1, flushOnClose=False)


def import_nvlxfer():
    import nvlxfer

    logger = logging.getLogger("nvlxfer")
    logger.addHandler(records)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    nvlxfer.version()  # loads the library


def import_nixl():
    import nixl_cu12._api  # noqa: F401


def import_mooncake():
    import mooncake.engine  # noqa: F401


def use_nvlxfer():
    from nvlxfer import Access, Engine, read

    owner, reader = Engine(), Engine()
    theirs, mine = owner.empty(LENGTH), reader.empty(LENGTH)
    theirs.fill(PATTERN)
    lent, own = owner.register(theirs, "theirs", Access.READ), reader.register(mine, access=Access.NONE)
    address = f"@nvlxfer-test-orders-{os.getpid()}"
    owner.serve(address)
    peer = reader.connect(address, 30)
    request = reader.transfer(read(peer, mine.address, *peer.find("theirs")))
    request.wait(30)
    assert mine.tobytes() == PATTERN
    assert any("on backend host" in record.getMessage() for record in records.buffer), records.buffer
    left_open.append((owner, reader, theirs, mine, lent, own, peer, request))


def use_nixl():
    from nixl_cu12._api import nixl_agent, nixl_agent_config

    mine, theirs = ctypes.create_string_buffer(LENGTH), ctypes.create_string_buffer(PATTERN, LENGTH)
    reader, owner = (nixl_agent(name, nixl_agent_config(backends=["UCX"])) for name in ("reader", "owner"))
    here, there = [(ctypes.addressof(mine), LENGTH, 0)], [(ctypes.addressof(theirs), LENGTH, 0)]
    regions = [
        agent.register_memory([(*what[0], "")], "DRAM") for agent, what in ((reader, here), (owner, there))
    ]
    reader.add_remote_agent(owner.get_agent_metadata())
    request = reader.initialize_xfer(
        "READ", reader.get_xfer_descs(here, "DRAM"), reader.get_xfer_descs(there, "DRAM"), "owner"
    )
    state, deadline = reader.transfer(request), time.monotonic() + 30
    while state == "PROC" and time.monotonic() < deadline:
        owner.get_new_notifs()
        state = reader.check_xfer_state(request)
    assert state == "DONE" and mine.raw == PATTERN, state
    left_open.append((mine, theirs, reader, owner, regions, request))


def use_mooncake():
    from mooncake.engine import TransferEngine

    mine, theirs = ctypes.create_string_buffer(LENGTH), ctypes.create_string_buffer(PATTERN, LENGTH)
    reader, owner = TransferEngine(), TransferEngine()
    for engine, buffer in ((reader, mine), (owner, theirs)):
        assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
        assert engine.register_memory(ctypes.addressof(buffer), LENGTH) == 0
    session = f"127.0.0.1:{owner.get_rpc_port()}"
    assert reader.transfer_sync_read(session, ctypes.addressof(mine), ctypes.addressof(theirs), LENGTH) == 0
    assert mine.raw == PATTERN
    left_open.append((mine, theirs, reader, owner))


def load_globally():
    """What is loaded from now on, as an extension or by ctypes, which asks nobody for the scope."""
    init = ctypes.CDLL.__init__

    def init_globally(self, name, mode=ctypes.DEFAULT_MODE, *others, **named):
        init(self, name, mode | os.RTLD_GLOBAL, *others, **named)

    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    ctypes.CDLL.__init__ = init_globally


def loaded(part):
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1] for line in maps if part in line.rsplit("/", 1)[-1]})


def initialise_glog():
    """That of Mooncake's wheel, once: a second time aborts."""
    (file,) = loaded("libglog")
    ctypes.CDLL(file)["_ZN6google17InitGoogleLoggingEPKc"](b"program")


def log_again():
    """What the library itself does with its lines, when Python has given them back."""
    import nvlxfer

    nvlxfer.reset_log(nvlxfer.LogLevel.DEBUG)
    left_open.append(nvlxfer.Engine())


def main(names):
    into_global = names[0] == "--global"
    if into_global:
        load_globally()
        names = names[1:]
    for name in names:
        globals()[f"import_{name}"]()
        if into_global and name == "mooncake":
            initialise_glog()
    for name in names:
        globals()[f"use_{name}"]()
    if into_global:
        log_again()
    print("OK", flush=True)


if __name__ == "__main__":
    import orders  # itself: what outlives the end would keep all of __main__, and so what is left open

    orders.main(sys.argv[1:])
