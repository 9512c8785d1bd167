# SPDX-License-Identifier: Apache-2.0
"""Runs tests one after the other, and says how long each takes."""

import time


def run_tests(tests):
    for test in tests:
        since = time.monotonic()
        test()
        print(f"ok: {test.__name__} ({time.monotonic() - since:.1f} s)", flush=True)
