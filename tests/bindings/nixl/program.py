# SPDX-License-Identifier: Apache-2.0
"""What NIXL's users do, between two processes, with the wheel at hand and the backend NVLX."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from support import LENGTH, VERSION, Memory, finish, make_agent, notices, raises, wait

KINDS = "VRAM", "DRAM", "HOST"


class Sides(NamedTuple):
    """Kinds of memory: this process's, and the owner's."""

    here: str
    there: str


LOST = ("nixlRemoteDisconnectError",)
STALE = "nixlNotFoundError", *LOST


class Owner:
    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "owner.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for kind in KINDS:
            self("register", kind)
            self("fill", kind, 1)
        self.address = self("addresses")

    def __call__(self, *words):
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def load(self):
        assert agent.add_remote_agent(bytes.fromhex(self("metadata"))) == b"owner"

    def reload(self):
        agent.remove_remote_agent("owner")
        self.load()

    def pieces(self, kind, offsets, length):
        return [(self.address[kind] + offset, length, 0) for offset in offsets]

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(20) == 0


agent = make_agent("reader")
mine = {kind: Memory(kind) for kind in KINDS}
handles = {kind: mine[kind].register(agent) for kind in KINDS}


def request(owner, sides, operation="READ", offsets=(0,), length=LENGTH, message=b""):
    here = mine[sides.here].described(agent, mine[sides.here].pieces(offsets, length))
    there = mine[sides.there].described(agent, owner.pieces(sides.there, offsets, length))
    return agent.initialize_xfer(operation, here, there, "owner", message)


def same(owner, sides):
    return mine[sides.here].digest() == owner("digest", sides.there)


def lists(owner, sides):
    rows = range(0, LENGTH, 8192)
    for operation in "READ", "WRITE":
        mine[sides.here].fill(2)
        owner("fill", sides.there, 3)
        finish(agent, request(owner, sides, operation, rows, 4096))
        theirs = bytes.fromhex(owner("read", sides.there))
        assert all(mine[sides.here].read(row, 4096) == theirs[row : row + 4096] for row in rows)
        assert all(mine[sides.here].read(row + 4096, 4096) != theirs[row + 4096 : row + 8192] for row in rows)
        finish(agent, request(owner, sides, operation))
        assert same(owner, sides)


def prepared_lists(owner, sides):
    """Blocks by their numbers, shuffled; the same request again."""
    count, block = LENGTH // 4096, 4096
    offsets = range(0, LENGTH, block)
    here = agent.prep_xfer_dlist("NIXL_INIT_AGENT", mine[sides.here].pieces(offsets, block), mine[sides.here].segment)
    there = agent.prep_xfer_dlist("owner", owner.pieces(sides.there, offsets, block), mine[sides.there].segment)
    order = np.random.default_rng(5).permutation(count).astype(np.int32)
    transfer = agent.make_prepped_xfer("READ", here, np.arange(count, dtype=np.int32), there, order, b"done")
    for seed in 4, 5, 6:
        owner("fill", sides.there, seed)
        finish(agent, transfer)
        theirs = bytes.fromhex(owner("read", sides.there))
        assert mine[sides.here].read() == b"".join(theirs[i * block : (i + 1) * block] for i in order)
        assert owner("messages", 1) == [b"done".hex()]
    agent.release_xfer_handle(transfer)


def strided_lists(owner, sides):
    """Nx5 of 1.5: every third block, of each quarter of the memory."""
    if VERSION < (1, 5):
        return
    quarter, count = LENGTH // 4, 40
    shape = [(i * quarter, 4096, 0, 3 * 4096, count) for i in range(4)]
    rows = [at + i * step for at, _, _, step, number in shape for i in range(number)]
    here = np.array([(mine[sides.here].address + at, *rest) for at, *rest in shape], dtype=np.uint64)
    there = np.array([(owner.address[sides.there] + at, *rest) for at, *rest in shape], dtype=np.uint64)
    here = agent.prep_xfer_dlist("NIXL_INIT_AGENT", here, mine[sides.here].segment)
    there = agent.prep_xfer_dlist("owner", there, mine[sides.there].segment)
    every = np.arange(4 * count, dtype=np.int32)
    mine[sides.here].fill(7)
    before = mine[sides.here].read()
    owner("fill", sides.there, 8)
    finish(agent, agent.make_prepped_xfer("READ", here, every, there, every))
    theirs = bytes.fromhex(owner("read", sides.there))
    for row in range(0, LENGTH, 4096):
        expected = theirs if row in rows else before
        assert mine[sides.here].read(row, 4096) == expected[row : row + 4096]


def messages(owner, sides):
    """After the data; long ones; many; from the other side."""
    word = bytes(range(256)) * 360
    transfer = request(owner, sides, "WRITE", message=word)
    for seed in range(9, 14):
        mine[sides.here].fill(seed)
        state = agent.transfer(transfer)
        assert owner("messages", 1) == [word.hex()] and same(owner, sides)
        wait(agent, transfer, state)
    for i in range(200):
        agent.send_notif("owner", b"%d" % i)
    assert owner("messages", 200) == [(b"%d" % i).hex() for i in range(200)]
    owner("send", agent.get_agent_metadata().hex(), 200, 1000)
    assert [word[:4] for word in notices(agent, "owner", 200)] == [i.to_bytes(4, "little") for i in range(200)]
    owner("write_to", agent.get_agent_metadata().hex(), mine[sides.here].address, mine[sides.here].segment, sides.there,
          "written")  # fmt: skip
    assert notices(agent, "owner", 1) == [b"written"]


def errors(owner, sides):
    raises(STALE, agent.send_notif, "nobody", b"")
    raises(("nixlNotFoundError", "nixlInvalidParamError"), request, owner, sides, "READ", (1,))
    refused = ("nixlNotSupportedError",)
    if sides.here == "DRAM":  # which no GPU reaches: known to its owner
        raises(refused, request, owner, Sides("DRAM", "VRAM"))
        raises(refused, lambda: finish(agent, request(owner, Sides("VRAM", "DRAM"))))


def releases(owner, sides):
    """One that is in flight is kept, and says so."""
    for seed in range(8):
        owner("fill", sides.there, seed)
        transfer = request(owner, sides)
        agent.transfer(transfer)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                agent.release_xfer_handle(transfer)
                break
            except Exception as error:
                assert type(error).__name__ == "nixlRepostActiveError", repr(error)
        assert same(owner, sides)
    transfer = request(owner, sides)
    agent.transfer(transfer)
    del transfer


def deregisters(owner, sides):
    """In flight, here and there: then old metadata does not reach what is registered again."""
    transfer = request(owner, sides)
    owner("fill", sides.there, 15)
    agent.transfer(transfer)
    agent.deregister_memory(handles[sides.here])
    assert same(owner, sides)
    handles[sides.here] = mine[sides.here].register(agent)
    agent.release_xfer_handle(transfer)
    transfer = request(owner, sides)
    state = agent.transfer(transfer)
    owner("deregister", sides.there)
    owner("register", sides.there)
    try:
        wait(agent, transfer, state)
    except Exception as error:  # DRAM that was withdrawn before its owner began
        assert mine[sides.there].segment == "DRAM" and type(error).__name__ in STALE, repr(error)
    raises(STALE, finish, agent, transfer)
    raises(STALE, lambda: finish(agent, request(owner, sides)))
    owner.reload()
    if VERSION >= (1, 4, 1):
        raises(STALE, agent.transfer, transfer)
    agent.release_xfer_handle(transfer)
    finish(agent, request(owner, sides))
    assert same(owner, sides)


def threads(owner, sides):
    """Lists in four threads, while another loads the peer again and again."""
    failed, end = [], time.monotonic() + 0.4

    def move(first):
        try:
            while time.monotonic() < end:
                finish(agent, request(owner, sides, "READ", range(first, first + 65536, 1024), 512))
        except BaseException as error:
            failed.append(error)

    movers = [threading.Thread(target=move, args=(i * 65536,)) for i in range(4)]
    for mover in movers:
        mover.start()
    while time.monotonic() < end:
        owner.load()
    for mover in movers:
        mover.join()
    assert not failed, failed


def again_and_again(transfer):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        finish(agent, transfer)
        time.sleep(0.01)


def killed(owner, sides):
    """Its memory is lost, also to who is waiting for it. Its successor of the same name can be loaded."""
    transfer, waiting = request(owner, sides), request(owner, sides)
    finish(agent, transfer)
    owner.process.send_signal(signal.SIGSTOP)
    os.waitpid(owner.process.pid, os.WUNTRACED)
    state = agent.transfer(waiting)
    if mine[sides.there].segment == "DRAM":  # which its owner copies
        assert state == agent.check_xfer_state(waiting) == "PROC"
    owner.process.send_signal(signal.SIGKILL)
    owner.process.wait()
    if mine[sides.there].segment == "DRAM":
        raises(LOST, wait, agent, waiting, state)
    else:
        wait(agent, waiting, state)
        raises(LOST, again_and_again, transfer)  # the word of its end takes a moment
    raises(STALE, finish, agent, transfer)
    if VERSION < (1, 5):
        assert not agent.check_remote_metadata("owner")
    agent.release_xfer_handle(transfer)
    agent.release_xfer_handle(waiting)
    successor = Owner()
    if VERSION >= (1, 5):
        agent.remove_remote_agent("owner")
    successor.load()
    successor("fill", sides.there, 21)
    finish(agent, request(successor, sides, message=b"to the successor"))
    assert same(successor, sides) and successor("messages", 1) == [b"to the successor".hex()]
    return successor


owner = Owner()
owner.load()
for sides in Sides("VRAM", "VRAM"), Sides("DRAM", "DRAM"), Sides("HOST", "VRAM"), Sides("VRAM", "HOST"):
    for test in lists, prepared_lists, strided_lists, messages, errors, releases, deregisters, threads:
        test(owner, sides)
    owner = killed(owner, sides)
# What is left is left to the end: requests, registrations, peers.
left = request(owner, Sides("VRAM", "VRAM"))
finish(agent, left)
owner.end()
print("ok: NIXL", ".".join(str(number) for number in VERSION))
