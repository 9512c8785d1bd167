# SPDX-License-Identifier: Apache-2.0
"""What is tried with vLLM's processes, from the router's and the core's point of view."""

import json
import random
import time
import uuid

from engine_parts import PATIENCE, Process, free_port, until
from engine_vllm import HEADS, LAYERS, LEASE, TOKENS


class Instance:
    """The processes of one instance."""

    def __init__(self, folder, kind, role, mode="pull", size=1, layout="LBHNC", blocks=48, port=None, **how):
        self.port = port or free_port()
        environment = {"VLLM_NIXL_SIDE_CHANNEL_PORT": str(self.port), "ENGINE": str(uuid.uuid4()), "ROLE": f"kv_{role}"}
        how = {"buffer": "cuda", "model": "gqa", "tokens": TOKENS, **how, "layout": layout, "blocks": blocks}
        words = "vllm", folder, int(kind), int(role == "consumer"), mode
        self.processes = [Process(*words, rank, size, json.dumps(how), **environment) for rank in range(size)]
        self.size, self.blocks, self.model, self.results, self.moved = size, blocks, how["model"], {}, 0

    def ready(self, seed):
        self.bounds = self.all("bounds")[0]
        self.publish()
        self.fill(seed)

    def publish(self):
        self.processes[0]("publish", [process("handshake") for process in self.processes])

    def all(self, *words):
        return [process(*words) for process in self.processes]

    def fill(self, seed):
        """Of MLA, all ranks have the same."""
        seeds = [f"{seed} {0 if self.model == 'mla' else rank}" for rank in range(self.size)]
        for process, each in zip(self.processes, seeds):
            process("fill", each)
        self.expected = [bytearray(random.Random(each).randbytes(self.bounds[0])) for each in seeds]

    def page(self, rank, layer, block):
        _, by_layer, by_block, length = self.bounds
        start = layer * by_layer + block * by_block
        return memoryview(self.expected[rank])[start : start + length]

    def step(self):
        """A step of the engine. What every worker has reported counts, as the core's aggregator has it."""
        results = self.all("step", self.processes[0]("schedule"))
        for rank, result in enumerate(results):
            for what, names in zip(("sent", "received", "failed", "lost"), result):
                for name in names:
                    self.results.setdefault((what, name), set()).add(rank)
        ready = {key for key, ranks in self.results.items() if len(ranks) == self.size or key[0] in ("failed", "lost")}
        self.processes[0]("output", [n for w, n in ready if w == "sent"], [n for w, n in ready if w == "received"])
        return ready

    def check(self, what, anything=()):
        """All is as expected. Blocks that may hold anything do so from now on."""
        _, by_layer, by_block, length = self.bounds
        every = [(layer, block) for layer in range(LAYERS) for block in range(self.blocks)]
        for rank, process in enumerate(self.processes):
            seen = bytes.fromhex(process("content"))
            parts = {(layer, block): seen[layer * by_layer + block * by_block :][:length] for layer, block in every}
            for place in every:
                if place[1] in anything:
                    self.page(rank, *place)[:] = parts[place]
            wrong = [place for place in every if parts[place] != self.page(rank, *place)]
            assert not wrong and seen == self.expected[rank], f"{what}: rank {rank}: wrong (layer, block): {wrong}"

    def end(self):
        for process in self.processes:
            process.end()


def hand_over(prefill, decode, theirs, ours):
    """What decode must have then. All heads of a block lie one behind the other, and a rank has an equal share."""
    for layer in range(LAYERS):
        for here, there in zip(ours, theirs):
            whole = b"".join(prefill.page(rank, layer, there) for rank in range(prefill.size))
            share = len(whole) // decode.size
            parts = [whole[rank * share : (rank + 1) * share] for rank in range(decode.size)]
            if decode.model == "mla":
                parts = [bytes(prefill.page(0, layer, there))] * decode.size
            for rank, part in enumerate(parts):
                decode.page(rank, layer, here)[:] = part
                decode.moved += len(part)


def names_of(name):
    """What both instances make of the router's: the prefill's, and decode's."""
    return f"{name}-00000001", f"{name}-00000002"


def prefilled(prefill, name, theirs):
    process = prefill.processes[0]
    process("prefill", names_of(name)[0], theirs)
    prefill.step()
    prefill.params = process("prefilled", names_of(name)[0])
    prefill.step()
    return prefill.params


def request(prefill, decode, name, theirs, ours):
    """One request, from the router's point of view. Decode may have the first blocks already."""
    params = prefilled(prefill, name, theirs)
    decode.processes[0]("decode", names_of(name)[1], params, ours, len(theirs) - len(ours))


def both(prefill, decode, until_key):
    """Steps of both, until decode reports this."""

    def step():
        prefill.step()
        return until_key in decode.step()

    until(step)


def whole_request(prefill, decode, name, theirs, ours):
    request(prefill, decode, name, theirs, ours)
    received(prefill, decode, name, theirs, ours)


def received(prefill, decode, name, theirs, ours):
    at_prefill, at_decode = names_of(name)
    both(prefill, decode, ("received", at_decode))
    until(lambda: ("sent", at_prefill) in prefill.step())
    assert not any(key[0] in ("failed", "lost") for key in decode.results), decode.results
    hand_over(prefill, decode, theirs[len(theirs) - len(ours) :], ours)
    prefill.check(f"{name}: prefill")
    decode.check(f"{name}: decode")


def pair(folder, kind, mode, ranks, layout="LBHNC", **how):
    prefill = Instance(folder, kind, "producer", mode, ranks[0], layout, **how)
    decode = Instance(folder, kind, "consumer", mode, ranks[1], layout, blocks=40, **how)
    prefill.ready("prefill")
    decode.ready("decode")
    return prefill, decode


def requests(folder, kind, mode, ranks, layout="LBHNC", **how):
    prefill, decode = pair(folder, kind, mode, ranks, layout, **how)
    whole_request(prefill, decode, "a", [3, 17, 5, 40, 41, 0, 47], [7, 2, 30, 31, 11, 39, 0])
    prefill.fill("prefill again")
    whole_request(prefill, decode, "b", [17, 4, 5, 6], [8, 30, 1, 38])
    whole_request(prefill, decode, "c", [20, 21, 22, 23, 9], [12, 13])
    figures = (prefill if mode == "push" else decode).all("figures")
    twice = how.get("model") == "mla" and mode == "push" and ranks == (2, 1)  # both ranks of the prefill write all
    assert sum(each["bytes_transferred"] for each in figures) == decode.moved * (1 + twice), (figures, decode.moved)
    decode.end()
    prefill.end()
    more = "".join(f", {name} {value}" for name, value in how.items())
    print(f"ok: vllm, {mode}, {layout}{more}, {ranks[0]} -> {ranks[1]} ranks", flush=True)


def other_sizes(folder, kind, layout):
    """Decode's blocks have twice as many tokens: it reads halves, and sorts them by heads."""
    prefill = Instance(folder, kind, "producer", layout=layout)
    decode = Instance(folder, kind, "consumer", layout=layout, blocks=24, tokens=2 * TOKENS)
    prefill.ready("prefill")
    decode.ready("decode")
    theirs, ours = [3, 17, 5, 40, 41, 0], [7, 2, 23]
    decode.processes[0]("decode", names_of("a")[1], prefilled(prefill, "a", theirs), ours)
    both(prefill, decode, ("received", names_of("a")[1]))
    until(lambda: ("sent", names_of("a")[0]) in prefill.step())
    for layer in range(LAYERS):
        pages = [bytes(prefill.page(0, layer, block)) for block in theirs]
        part = len(pages[0]) // HEADS
        for place, here in enumerate(ours):
            halves = pages[2 * place : 2 * place + 2]
            heads = (half[head * part :][:part] for head in range(HEADS) for half in halves)
            decode.page(0, layer, here)[:] = b"".join(heads)
    prefill.check("other sizes: prefill")
    decode.check("other sizes: decode")
    decode.end()
    prefill.end()
    print(f"ok: vllm, pull, {layout}, blocks of {TOKENS} -> {2 * TOKENS} tokens", flush=True)


def at_once(folder, kind, mode):
    """Many requests that wait for each other's blocks at the same time."""
    prefill, decode = pair(folder, kind, mode, (1, 1))
    wanted = {f"r{i}": ([(7 * i + k) % 48 for k in (5, 0, 1)], [3 * i + k for k in (2, 0, 1)]) for i in range(13)}
    for name, (theirs, ours) in wanted.items():
        request(prefill, decode, name, theirs, ours)
    for name, (theirs, ours) in wanted.items():
        both(prefill, decode, ("received", names_of(name)[1]))
        hand_over(prefill, decode, theirs, ours)
    for name in wanted:
        at_prefill = names_of(name)[0]
        until(lambda at_prefill=at_prefill: ("sent", at_prefill) in prefill.step())
    prefill.check("at once: prefill")
    decode.check("at once: decode")
    decode.end()
    prefill.end()
    print(f"ok: vllm, {mode}, {len(wanted)} requests at once", flush=True)


def late(folder, kind):
    """A request waits in decode's queue for longer than its lease, which messages prolong."""
    prefill, decode = pair(folder, kind, "pull", (1, 1))
    whole_request(prefill, decode, "a", [3, 17], [7, 2])
    params = prefilled(prefill, "b", [4, 5])
    decode.processes[0]("queue", names_of("b")[1], params, 2)
    end = time.monotonic() + 2 * LEASE
    while time.monotonic() < end:
        decode.step()
        assert ("sent", names_of("b")[0]) not in prefill.step(), "the lease has ended"
        time.sleep(0.05)
    decode.processes[0]("decode", names_of("b")[1], params, [8, 9])
    received(prefill, decode, "b", [4, 5], [8, 9])
    decode.end()
    prefill.end()
    print("ok: vllm, pull, a lease that is prolonged", flush=True)


def sleeping(folder, kind):
    """Around vLLM's sleep the caches are withdrawn and registered again, and peers shake hands again."""
    prefill, decode = pair(folder, kind, "pull", (1, 1))
    whole_request(prefill, decode, "a", [3, 17, 5], [7, 2, 30])
    request(prefill, decode, "stale", [4, 5], [8, 9])
    begin = time.monotonic()
    prefill.all("sleep")
    assert time.monotonic() - begin < PATIENCE / 8, "the caches were withdrawn slowly"
    failed(decode, "stale", [8, 9])
    prefill.all("wake")
    prefill.publish()
    decode.results.clear()
    whole_request(prefill, decode, "b", [9, 4], [1, 0])
    decode.all("sleep")
    decode.all("wake")
    decode.publish()
    whole_request(prefill, decode, "c", [8, 2], [15, 39])
    decode.end()
    prefill.end()
    print("ok: vllm, pull, around sleep", flush=True)


def failed(decode, name, ours):
    """Decode tells the core that a request has failed, and which of its blocks hold nothing. It has changed no others:
    who is killed while something is read may be noticed behind the bytes."""
    at_decode = names_of(name)[1]
    until(lambda: ("failed", at_decode) in decode.step())
    assert ("received", at_decode) in decode.results and {n for w, n in decode.results if w == "lost"} == set(ours)
    decode.check(f"{name}: decode", ours)


def killed(folder, kind):
    """The prefill's process is gone: before a read, and before they ever shook hands. Another takes its place."""
    prefill, decode = pair(folder, kind, "pull", (1, 1))
    whole_request(prefill, decode, "a", [3, 17, 5], [7, 2, 30])
    request(prefill, decode, "b", [4, 5], [8, 9])
    prefill.processes[0].kill()
    failed(decode, "b", [8, 9])
    decode.results.clear()
    for port in None, prefill.port:
        other = Instance(folder, kind, "producer", port=port)
        other.ready("other")
        whole_request(other, decode, "c", [8, 2], [15, 39])
    last = Instance(folder, kind, "producer")
    last.ready("last")
    request(last, decode, "d", [1], [20])
    last.processes[0].kill()
    failed(decode, "d", [20])
    decode.end()
    other.end()
    print("ok: vllm, pull, a prefill that is killed", flush=True)


def reader_killed(folder, kind):
    """Decode is gone when its blocks are pushed: prefill keeps them until the lease ends, and serves others."""
    prefill, decode = pair(folder, kind, "push", (1, 1))
    whole_request(prefill, decode, "a", [3, 17, 5], [7, 2, 30])
    at_prefill, at_decode = names_of("b")
    process = prefill.processes[0]
    process("prefill", at_prefill, [4, 5])
    prefill.step()
    decode.processes[0]("decode", at_decode, prefill.params, [8, 9])
    until(lambda: decode.step() and prefill.step() and process("registered"))
    decode.processes[0].kill()
    begin = time.monotonic()
    process("prefilled", at_prefill)
    other = Instance(folder, kind, "consumer", "push", blocks=40)
    other.ready("other")
    whole_request(prefill, other, "c", [8, 2], [15, 39])
    until(lambda: ("sent", at_prefill) in prefill.step())
    assert time.monotonic() - begin > LEASE - 1 and process("figures")["num_failed_transfers"] == 1
    other.end()
    prefill.end()
    print("ok: vllm, push, a decode that is killed", flush=True)


def handing_over(folder, kind, mode):
    for ranks in ((1, 1), (1, 2), (2, 1)):
        requests(folder, kind, mode, ranks)
    requests(folder, kind, mode, (1, 1), "BLHNC")
    requests(folder, kind, mode, (1, 2), buffer="cpu")
    for ranks, layout in (((1, 2), "BLHNC"), ((2, 1), "LBHNC")):
        requests(folder, kind, mode, ranks, layout, model="mla")
    at_once(folder, kind, mode)


def pull(folder, kind):
    handing_over(folder, kind, "pull")
    for layout in ("LBHNC", "BLHNC"):
        other_sizes(folder, kind, layout)


def push(folder, kind):
    handing_over(folder, kind, "push")


def lives(folder, kind):
    late(folder, kind)
    sleeping(folder, kind)
    killed(folder, kind)
    reader_killed(folder, kind)


PARTS = {"pull": pull, "push": push, "lives": lives}
