"""Who waits for something in an SQLite file hears of it at once: a datagram to each waiting process.

SQLite itself tells nobody. So each waiting process notes a UDP port of its own (on 127.0.0.1) in the table
`listeners`, and whoever commits something reads the ports in the same transaction and sends them a datagram
afterwards. Datagrams are only hints: they may be lost, and anybody on this machine may send them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from aioretryq.drivers.sqlite import Database

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
REFRESH = 5.0
"""Seconds after which a listener says anew that it is there, and looks for itself."""
STALE = 15.0
"""Seconds after which a listener that has not done so is no longer rung."""
POLL = 0.2
"""Seconds between looks where there is no UDP."""
DATAGRAM = 1200
RECEIVE_BUFFER = 2**20

ANY = b""
"""A datagram that says: look at everything."""


def ports(connection: sqlite3.Connection, topics: Iterable[str]) -> set[int]:
    """Who listens to one of the topics; read in the transaction that has the news."""
    fresh = time.time() - STALE
    query = "SELECT port FROM listeners WHERE topic = ? AND seen > ?"
    return {port for topic in topics for (port,) in connection.execute(query, (topic, fresh))}


def all_ports(connection: sqlite3.Connection, prefix: str) -> set[int]:
    """Who listens to any topic that starts so."""
    query = "SELECT DISTINCT port FROM listeners WHERE substr(topic, 1, ?) = ? AND seen > ?"
    return {port for (port,) in connection.execute(query, (len(prefix), prefix, time.time() - STALE))}


def pack(names: Iterable[str]) -> list[bytes]:
    """Names in as few datagrams as they fit into."""
    datagrams: list[bytes] = []
    current = b""
    for name in names:
        raw = name.encode(errors="replace")
        if current and len(current) + 1 + len(raw) > DATAGRAM:
            datagrams.append(current)
            current = b""
        current = current + b"\0" + raw if current else raw
    return [*datagrams, current] if current else datagrams


def unpack(datagram: bytes) -> list[str]:
    return datagram.decode(errors="replace").split("\0")


class Ringer:
    """Sends datagrams, from any thread, and never waits."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def open(self) -> None:
        # Without UDP nobody can have registered a port either.
        with contextlib.suppress(OSError):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ring(self, to: Iterable[int], datagrams: Iterable[bytes] = (ANY,)) -> None:
        if (sending := self._socket) is None:
            return
        datagrams = tuple(datagrams)
        for port in to:
            for datagram in datagrams:
                # A full buffer or a listener that is gone: the listeners' own looks make up for it.
                with contextlib.suppress(OSError):
                    sending.sendto(datagram, (HOST, port))


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._heard(data)


class Doorbell:
    """One listening port, and the topics it is registered for."""

    def __init__(self, database: Database, heard: Callable[[bytes], None]) -> None:
        self.port: int | None = None
        self._database = database
        self._heard = heard
        self._transport: asyncio.DatagramTransport | None = None
        self._announced: dict[str, float] = {}

    @property
    def interval(self) -> float:
        """How long a listener may wait for a datagram before it looks for itself."""
        return POLL if self.port is None else REFRESH

    async def open(self) -> None:
        listening = None
        try:
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            listening.bind((HOST, 0))
            listening.setblocking(False)
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Receiver(self._heard), sock=listening)
            self.port = listening.getsockname()[1]
        except BaseException as error:
            if listening is not None:
                listening.close()
            if not isinstance(error, OSError):
                raise
            logger.warning("No UDP on %s (%s): looking into the SQLite file every %s s instead.", HOST, error, POLL)

    async def announce(self, topics: Iterable[str]) -> bool:
        """Be registered for the topics. Who commits news of them from now on rings.

        True when that was not so all the time since the last call, so that something may have been missed.
        """
        now = time.time()
        stale = [topic for topic in topics if not 0 <= now - self._announced.get(topic, 0.0) < REFRESH]
        if self.port is None:
            return True
        if not stale:
            return False
        lapsed = any(not 0 <= now - self._announced.get(topic, 0.0) < STALE for topic in stale)
        rows = [(topic, self.port, now) for topic in stale]
        await self._database.write(lambda connection: _register(connection, rows, now))
        self._announced.update(dict.fromkeys(stale, now))
        return lapsed

    async def aclose(self) -> None:
        """Stop listening. Wants the database to be open still."""
        transport, self._transport = self._transport, None
        port, self.port = self.port, None
        announced, self._announced = self._announced, {}
        if transport is not None:
            transport.close()
        if announced:
            await self._database.write(lambda c: c.execute("DELETE FROM listeners WHERE port = ?", (port,)))


def _register(connection: sqlite3.Connection, rows: list[tuple[str, int, float]], now: float) -> None:
    connection.execute("DELETE FROM listeners WHERE seen < ?", (now - STALE,))
    connection.executemany("INSERT OR REPLACE INTO listeners (topic, port, seen) VALUES (?, ?, ?)", rows)
