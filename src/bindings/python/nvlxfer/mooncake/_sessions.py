# SPDX-License-Identifier: Apache-2.0
"""Sessions, "host:port": where an engine serves, and the peers that others have there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
import urllib.parse

from .. import Engine, Peer
from ..errors import _EEXIST, NvlxError, Stale, Timeout, _error, _invalid
from ._advice import USE_FOLDER

_CONNECTIONS = 4096  # to one engine: each peer takes one for its life
_TRIES = 16  # ports, of which another program may have the name
_SYNC = 10.0  # seconds that a peer's news may take


def bare_host(text: str) -> str:
    """The host of "host", "host:port", "[v6]:port", "v6" and "[v6]"."""
    text = text.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0].lower()
    return (text.partition(":")[0] if text.count(":") == 1 else text).lower()


def _parse(session: str) -> tuple[str, int]:
    host, _, port = session.strip().rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 1 << 16:
        raise _invalid(f'the session {session!r} is not "host:port"')
    return bare_host(host), int(port)


def _folder() -> str | None:
    """Where engines of several network namespaces serve."""
    return os.environ.get("NVLX_MOONCAKE_FOLDER")


def _address(host: str, port: int) -> str:
    folder = _folder()
    if folder:
        return f"{os.path.abspath(folder)}/{urllib.parse.quote(host, safe='')}-{port}.sock"
    return f"@nvlxfer-mooncake-{port}"


def _is_here(address: str) -> bool:
    """Whether the address is one of this node: what goes there would leave from there. Nothing is sent."""
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return str(probe.getsockname()[0]) == address
    except OSError:
        return False


def _on_this_node(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    return any(_is_here(str(address[0])) for *_, address in found)


def doubt(host: str) -> str | None:
    """Why peers may refuse sessions of an engine that has this host. Names are not looked up: that may take long."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if _folder() or _on_this_node(host):
        return None
    return (
        f"{host!r} is no address of this node. Engines that have another host refuse its sessions: each is on another"
        f" node, they say. Give an address of this node, or {USE_FOLDER}"
    )


def _held_port() -> tuple[int, int]:
    """A free TCP port, and the descriptor that keeps it from others."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as held:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            held.bind(("::", 0))
            return int(held.getsockname()[1]), held.detach()
    except OSError:  # there is no IPv6
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
            held.bind(("", 0))
            return int(held.getsockname()[1]), held.detach()


def serve(engine: Engine, host: str) -> tuple[int, int]:
    """Lets others find the engine. The port that it has from now on, and the descriptor that holds it."""
    for left in reversed(range(_TRIES)):
        port, held = _held_port()
        try:
            engine.serve(_address(host, port), max_connections=_CONNECTIONS)
            return port, held
        except NvlxError as failure:
            os.close(held)
            if failure.code != _EEXIST or not left:
                raise
    raise AssertionError("not reached")


def _gone(peer: Peer) -> bool:
    if peer.closed:
        return True
    try:
        peer.test()
    except Stale:
        return True
    return False


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.peer: Peer | None = None

    def drop(self) -> None:
        """Closes a peer that is gone."""
        peer, self.peer = self.peer, None
        if peer is not None:
            with contextlib.suppress(NvlxError):
                peer.close()


class Sessions:
    """The peers of an engine. Each is connected at its first use, and again when another engine serves there."""

    def __init__(self, engine: Engine, host: str) -> None:
        self._engine, self._host = engine, host
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def peer(self, session: str) -> Peer:
        while True:
            entry = self._entry(session)
            with entry.lock:
                if self._entries.get(session) is entry:  # or it was let go meanwhile
                    if entry.peer is not None and not _gone(entry.peer):
                        return entry.peer
                    connected = self._renew(session, entry)
                    break
        self._sweep()
        return connected

    def _renew(self, session: str, entry: _Entry) -> Peer:
        """Under the entry's lock."""
        entry.drop()
        try:
            entry.peer = self.connect(session)
            return entry.peer
        finally:
            if entry.peer is None:
                self._forget(session)

    def connect(self, session: str) -> Peer:
        """A new peer, which knows all that the session's engine has registered."""
        host, port = _parse(session)
        if not _folder() and host != self._host and not _on_this_node(host):
            raise _invalid(f"the session {session!r} is on another node, as {host!r} is no address of this one: nvlxfer"
                           " moves memory within a node. If it is the address of a container of this node,"
                           f" {USE_FOLDER}")  # fmt: skip
        try:
            return self._engine.connect(_address(host, port), timeout=0)
        except Timeout as failure:
            raise _error(failure.code, f"no engine of nvlxfer.mooncake is reached at the session {session!r} on this"
                         f" node ({failure})") from None  # fmt: skip

    def catch_up(self, session: str, peer: Peer) -> None:
        """Until the peer knows what the session's engine has registered by now."""
        with self.connect(session) as fresh, contextlib.suppress(Stale):  # who is gone has no news
            if not peer.closed:
                peer.sync(fresh.generation(), _SYNC)

    def _entry(self, session: str) -> _Entry:
        with self._lock:
            found = self._entries.get(session)
            if found is None:
                found = self._entries[session] = _Entry()
            return found

    def _forget(self, session: str) -> None:
        """Under the lock of its entry, which has no peer."""
        with self._lock:
            self._entries.pop(session, None)

    def _sweep(self) -> None:
        """Lets go of what is known of engines that are gone."""
        with self._lock:
            entries = list(self._entries.items())
        for session, entry in entries:
            if entry.lock.acquire(blocking=False):
                try:
                    if self._entries.get(session) is entry and entry.peer is not None and _gone(entry.peer):
                        entry.drop()
                        self._forget(session)
                finally:
                    entry.lock.release()
