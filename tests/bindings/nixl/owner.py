# SPDX-License-Identifier: Apache-2.0
"""The other process: has an agent "owner" and memory, and does what lines of JSON on stdin say."""

import json
import sys

from support import Memory, finish, make_agent, notices

agent = make_agent("owner")
memory = {kind: Memory(kind, 1) for kind in ("VRAM", "DRAM", "HOST")}
handles = {}


def register(kind):
    handles[kind] = memory[kind].register(agent)


def deregister(kind):
    agent.deregister_memory(handles.pop(kind))


def fill(kind, seed):
    memory[kind].fill(seed)


def read(kind):
    return memory[kind].read().hex()


def digest(kind):
    return memory[kind].digest()


def metadata():
    return agent.get_agent_metadata().hex()


def addresses():
    return {kind: place.address for kind, place in memory.items()}


def messages(count):
    return [word.hex() for word in notices(agent, "reader", count)]


def send(other, count, length):
    agent.add_remote_agent(bytes.fromhex(other))
    for i in range(count):
        agent.send_notif("reader", i.to_bytes(4, "little") + bytes(length))


def write_to(other, address, segment, kind, message):
    """From this memory to theirs. With a message that follows it."""
    agent.remove_remote_agent("reader")
    agent.add_remote_agent(bytes.fromhex(other))
    here = memory[kind].described(agent, memory[kind].pieces((0,), 65536))
    there = agent.get_xfer_descs([(address, 65536, 0)], segment)
    finish(agent, agent.initialize_xfer("WRITE", here, there, "reader", message.encode()))


for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(globals()[name](*arguments)), flush=True)
