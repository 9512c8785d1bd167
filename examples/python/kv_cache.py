# SPDX-License-Identifier: Apache-2.0
"""A KV cache between two processes with asyncio: one fills blocks (prefill), the other fetches them (decode).

    python3 kv_cache.py [requests]

Prefill tells decode by a message which of its blocks hold a request. Decode reads them into blocks of its own, all in
one transfer, which it awaits; nothing polls. That transfer carries a message back: it comes to prefill when all bytes
are in place, so that prefill may fill these blocks again.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import random
import subprocess
import sys

from nvlxfer import Access, Array, Engine, EventKind, Peer, read

LAYERS, BLOCKS, BYTES = 8, 64, 16384  # the cache; bytes of one block in one layer


def content(request: int, index: int, layer: int) -> bytes:
    return bytes([(request * 31 + index * 7 + layer) % 256]) * BYTES


def block(cache: int, layer: int, number: int) -> int:
    """The address of a block in a layer."""
    return cache + (layer * BLOCKS + number) * BYTES


async def prefill(name: str, requests: int) -> None:
    with Engine() as engine, engine.empty((LAYERS, BLOCKS, BYTES)) as cache, engine.register(cache, "kv", Access.READ):
        engine.serve(name + "-prefill")
        peer = await asyncio.to_thread(engine.connect, name + "-decode", 30)
        free, busy = list(range(BLOCKS)), dict[int, list[int]]()
        events = engine.events()
        for request in range(requests):
            count = random.randint(1, 20)
            while len(free) < count:  # until decode has fetched older ones
                event = await events.__anext__()
                if event.kind == EventKind.PEER_LOST:
                    sys.exit(f"decode is gone: {event.reason}")
                if event.kind == EventKind.MESSAGE:
                    free += busy.pop(int(event.message))
            busy[request] = [free.pop() for _ in range(count)]
            for index, number in enumerate(busy[request]):
                for layer in range(LAYERS):
                    engine.memcpy(block(cache.address, layer, number), content(request, index, layer))
            peer.send(json.dumps([request, busy[request]]).encode())
        async for event in events:
            if event.kind == EventKind.MESSAGE:
                busy.pop(int(event.message))
            if not busy or event.kind == EventKind.PEER_LOST:
                break
        peer.close()


async def fetch(engine: Engine, peer: Peer, cache: Array, mine: list[int], request: int, theirs: list[int]) -> None:
    local, remote = array.array("Q"), array.array("Q")
    there, _ = peer.find("kv")
    for layer in range(LAYERS):
        local.extend(block(cache.address, layer, number) for number in mine)
        remote.extend(block(there, layer, number) for number in theirs)
    with engine.transfer(read(peer, local, remote, BYTES), message=str(request).encode()) as transfer:
        await transfer
    seen = bytearray(BYTES)
    for index, number in enumerate(mine):
        for layer in range(LAYERS):
            engine.memcpy(seen, block(cache.address, layer, number))
            if seen != content(request, index, layer):
                sys.exit(f"request {request}: block {index} of layer {layer} is wrong")


async def decode(name: str, requests: int) -> None:
    with Engine() as engine, engine.empty((LAYERS, BLOCKS, BYTES)) as cache, engine.register(cache, access=Access.NONE):
        engine.serve(name + "-decode")
        peer = await asyncio.to_thread(engine.connect, name + "-prefill", 30)
        done = 0
        async for event in engine.events():
            if event.kind == EventKind.PEER_LOST:
                sys.exit(f"prefill is gone: {event.reason}")
            if event.kind != EventKind.MESSAGE:
                continue
            request, theirs = json.loads(event.message)
            await fetch(engine, peer, cache, list(range(len(theirs))), request, theirs)
            done += 1
            if done == requests:
                break
        print(f"decode has fetched the blocks of {done} requests, all right")
        peer.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--decode"]:
        asyncio.run(decode(sys.argv[2], int(sys.argv[3])))
        sys.exit()
    wanted = sys.argv[1] if len(sys.argv) > 1 else "50"
    place = f"@nvlxfer-kv-{os.getpid()}"
    with subprocess.Popen([sys.executable, __file__, "--decode", place, wanted]) as other:
        asyncio.run(prefill(place, int(wanted)))
    sys.exit(other.returncode)
