# SPDX-License-Identifier: Apache-2.0
"""Shares memory, then answers on stdout what stdin asks, and leaves with everything open."""

import array
import json
import sys
from nvlxfer import Access, Backend, Engine

count = 100_000
engine = Engine(Backend.HOST)
address = engine.alloc(0, 1 << 20)
engine.memcpy(address, bytes(i % 251 for i in range(1 << 20)))
engine.register((address, 1 << 20), "whole")
engine.register((address + 4096, 4096), "read only", Access.READ)
words = engine.alloc(1, 8 * count)
engine.memcpy(words, array.array("Q", range(count)))
engine.register((words, 8 * count), "words", Access.READ)
guarded = engine.alloc(0, 4096)
engine.register((guarded, 4096), "guarded", Access.READ)
if sys.argv[1]:
    engine.serve(sys.argv[1])
print(json.dumps(engine.export()), flush=True)
for line in sys.stdin:
    offset, length = map(int, line.split())
    seen = bytearray(length)
    engine.memcpy(seen, address + offset)
    print(seen.hex(), flush=True)
