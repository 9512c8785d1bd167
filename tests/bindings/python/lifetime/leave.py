# SPDX-License-Identifier: Apache-2.0
"""Leaves the interpreter with all kinds of objects open, one transfer in flight, some of it in a cycle."""

import atexit
import sys

# Registered before the binding's own, so called after it.
atexit.register(lambda: print([each.closed for each in (engine, region, peer, prepared)]))
from nvlxfer import Engine, read

engine = Engine()
length = 64 << 20
buffer = engine.alloc(0, 2 * length)
region = engine.register((buffer, 2 * length), "all")
peer = engine.peer_open(engine.export())
prepared = engine.prepare(read(peer, buffer, buffer + length, 8))
requests = [prepared.post(), engine.transfer(read(peer, buffer, buffer + length, length))]
requests.append(requests)
second = Engine()
second.cycle = [second, second.register((second.alloc(0, 4096), 4096))]
del second  # in a cycle
assert "asyncio" not in sys.modules  # to import it takes longer than all else
sys.exit(3)
