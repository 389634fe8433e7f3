"""What workers are called."""

from __future__ import annotations

import os
import re
import socket

from aioretryq.errors import ConfigError

NOT_IN_NAMES = re.compile(r"[\s,*?\[\]%]")
"""Blanks and commas part the names that a command is for, the others make a pattern of a name."""


def node_name(name: str | None) -> str:
    """`name@host`, as Celery calls its workers, with its abbreviations: `%h` is the host, `%n` the host without its
    domain, `%d` the domain. `%i` and `%I`, where a number among `--processes` goes, are 0 and nothing here."""
    host = socket.gethostname()
    if name is None:
        return f"aioretryq-{os.getpid()}@{host}"
    short, _, domain = host.partition(".")
    meant = {"%h": host, "%n": short, "%d": domain, "%i": "0", "%I": ""}
    expanded = re.sub("%.", lambda found: meant.get(found[0], found[0]), name)
    node = expanded if "@" in expanded else f"{expanded}@{host}"
    if wrong := " ".join(map(repr, dict.fromkeys(NOT_IN_NAMES.findall(node)))):
        raise ConfigError(
            f"A worker cannot be named {name!r}: nobody could address it with {wrong} in its name. "
            "Use letters, digits, '-', '_', '.'; %h, %n and %d for the host, %i for the number of the process."
        )
    if node.startswith("@") or node.endswith("@"):
        raise ConfigError(f"A worker cannot be named {name!r}: a name looks like web@%h, and {node!r} lacks a half.")
    return node
