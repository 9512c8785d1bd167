# SPDX-License-Identifier: Apache-2.0
"""Transfers by bare calls of C, beside which bench.py and overhead.py measure the package's.

The leanest that ctypes offers: functions without argtypes, bound once, with arguments that are objects of ctypes
already. Three calls by ctypes cost some 1 us, which is in the bare part.
"""

import ctypes
import statistics
import sys
import time

from nvlxfer._c.native import _library


class Bare:
    """The same calls, without options: the package's have NVLX_NO_MAP at most."""

    def __init__(self):
        library = _library()._library
        functions = [library[name] for name in ("nvlx_post", "nvlx_transfer", "nvlx_wait", "nvlx_request_free")]
        for function in functions:
            function.restype = ctypes.c_int
        self._post, self._transfer, self._wait, self._free = functions

    def _common(self, handle):
        request = ctypes.c_void_p()
        return ctypes.c_void_p(handle), ctypes.c_void_p(), ctypes.byref(request), request, ctypes.c_int64(-1)

    def poster(self, prepared_list):
        post, wait, free = self._post, self._wait, self._free
        prepared, none, made, request, for_ever = self._common(prepared_list._handle)

        def work():
            if post(prepared, none, made) or wait(request, for_ever) or free(request):
                sys.exit("a bare call failed")

        return work

    def transferrer(self, of_engine, ops):
        transfer, wait, free = self._transfer, self._wait, self._free
        engine, none, made, request, for_ever = self._common(of_engine._handle)
        memory = (ctypes.c_char * len(ops._buffer)).from_buffer(ops._buffer)
        table, number = ctypes.byref(memory), ctypes.c_size_t(len(ops))

        def work():
            if transfer(engine, table, number, none, made) or wait(request, for_ever) or free(request):
                sys.exit("a bare call failed")

        return work


def timed(work):
    since = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - since


def compare(package, bare, rounds):
    """Nanoseconds of the package, of the bare calls, and of the two's difference in a round: medians. In each round one
    comes right after the other, of the same list; which is first changes."""
    for _ in range(min(rounds, 100)):
        package()
        bare()
    pairs = []
    for index in range(rounds):
        if index % 2:
            pairs.append((timed(package), timed(bare)))
        else:
            pairs.append((timed(bare), timed(package))[::-1])
    ours, theirs = zip(*pairs)
    more = statistics.median(one - other for one, other in pairs)
    return statistics.median(ours), statistics.median(theirs), more
