# SPDX-License-Identifier: Apache-2.0
"""Counts for prometheus_client, which the program brings."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from typing import Any

from .engine import Engine
from .errors import NvlxError, _check
from .peers import Peer


class Collector:
    """Gives prometheus_client the counts of an engine, or of a peer that serves with `stats`:

        prometheus_client.REGISTRY.register(nvlxfer.Collector(engine))

    Each scrape reads them once. A source that is closed, lost or does not answer is left out of the scrape: the others
    go on, and logging.getLogger("nvlxfer") says why. All engines have metrics of the same names, so each has a registry
    of its own. Any thread. ImportError: there is no prometheus_client."""

    def __init__(self, source: Engine | Peer) -> None:
        _check("source", source, (Engine, Peer), "an Engine, or a Peer")
        self._source = source
        self._parse: Any = importlib.import_module("prometheus_client.parser").text_string_to_metric_families

    def describe(self) -> Iterable[Any]:
        """What the registry looks at for names, so that it does not ask the source at once: nothing is known yet."""
        return []

    def collect(self) -> Iterable[Any]:
        """The families of metrics, as prometheus_client has them."""
        try:
            text = self._source.stats_prometheus()
        except NvlxError as failure:
            logging.getLogger("nvlxfer").warning("no counts for Prometheus: %s", failure)
            return []
        return list(self._parse(text))
