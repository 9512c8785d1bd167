# SPDX-License-Identifier: Apache-2.0
"""Counts as prometheus_client shows them: with it where it is there, else with a stand-in for its parser."""

import importlib.util
import logging
import os
import sys
import types

from nvlxfer import Access, Collector, Engine, read
from support import run_tests

HAS_CLIENT = importlib.util.find_spec("prometheus_client") is not None
if not HAS_CLIENT:
    parser = types.ModuleType("prometheus_client.parser")
    parser.text_string_to_metric_families = lambda text: iter(text.splitlines())
    sys.modules["prometheus_client"] = types.ModuleType("prometheus_client")
    sys.modules["prometheus_client.parser"] = parser


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def text_of(collector):
    """What a scrape has of it."""
    if not HAS_CLIENT:
        return "\n".join(collector.collect())
    client = importlib.import_module("prometheus_client")
    registry = client.CollectorRegistry()
    registry.register(collector)
    return client.generate_latest(registry).decode()


def test_of_both_sides():
    at = f"@nvlx-metrics-{os.getpid()}"
    with Engine() as owner, Engine() as engine, owner.empty(4096) as theirs, engine.empty(4096) as mine:
        owner.register(theirs, "w0", Access.READ)
        engine.register(mine, access=Access.NONE)
        owner.serve(at, stats=True)
        with engine.connect(at) as peer:
            engine.transfer(read(peer, mine.address, *peer.find("w0"))).wait(30)
            own, others = Collector(engine), Collector(peer)
            lines = [line for line in text_of(own).splitlines() if line.startswith("nvlxfer_transferred_bytes_total{")]
            assert sum(float(line.split()[-1]) for line in lines) == 4096, lines
            assert any(line.startswith("nvlxfer_regions 1") for line in text_of(others).splitlines())
        heard = Heard()
        logging.getLogger("nvlxfer").addHandler(heard)
        assert "nvlxfer_" not in text_of(others)  # the peer is closed, and a scrape goes on without it
        assert any("no counts for Prometheus" in said for said in heard.said), heard.said
    assert "nvlxfer_" not in text_of(own)


run_tests([test_of_both_sides])
