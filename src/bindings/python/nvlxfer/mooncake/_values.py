# SPDX-License-Identifier: Apache-2.0
"""The small types of `mooncake.engine`."""

from __future__ import annotations

import contextlib
import enum
import logging
import operator

from .. import NvlxError, Request, Timeout
from ._advice import told

_log = logging.getLogger("nvlxfer.mooncake")


class TransferOpcode(enum.IntEnum):
    Read, Write = 0, 1

    __str__ = enum.Enum.__str__


class ScatterTransferCompletionStatus(enum.IntEnum):
    COMPLETED, FAILED_DRAINED, COMPLETION_UNKNOWN = 0, -1, -2

    __str__ = enum.Enum.__str__


class TransferNotify:
    """A message to the engine whose memory a transfer reads or writes: there after the transfer's bytes."""

    def __init__(self, name: str = "", msg: str = "") -> None:
        self.name, self.msg = name, msg


class ScatterTransferTicket:
    """The completion of a scattered transfer, which may be over already."""

    def __init__(self, request: Request | None, status: ScatterTransferCompletionStatus) -> None:
        self._request, self._status = request, status

    @property
    def status(self) -> ScatterTransferCompletionStatus:
        """COMPLETION_UNKNOWN: it is still in flight."""
        return self.drain(0)

    @property
    def drained(self) -> bool:
        return self.status != ScatterTransferCompletionStatus.COMPLETION_UNKNOWN

    def drain(self, timeout_ms: int, /) -> ScatterTransferCompletionStatus:
        """Waits up to so many milliseconds until it is over; not at all if they are less than none."""
        milliseconds, request = max(0, operator.index(timeout_ms)), self._request
        if request is not None:
            try:
                request.wait(milliseconds / 1000)
                self._status = ScatterTransferCompletionStatus.COMPLETED
            except Timeout:
                return ScatterTransferCompletionStatus.COMPLETION_UNKNOWN
            except NvlxError as failure:
                _log.error("a scattered transfer has failed: %s", told(failure))
                self._status = ScatterTransferCompletionStatus.FAILED_DRAINED
            self._request = None
        return self._status

    def _over(self) -> ScatterTransferTicket:
        """Waits until it is over, also if Ctrl-C comes meanwhile."""
        with self._request or contextlib.nullcontext():
            while self.drain(1000) == ScatterTransferCompletionStatus.COMPLETION_UNKNOWN:
                pass
        return self
