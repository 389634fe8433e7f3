"""What one broker object has sent, as far as it is not known whether it arrived.

Who sends a tag twice within a minute adds nothing. For messages that only this object sends (`Outgoing.fresh`) the
file keeps one name for a whole batch instead of each tag: a row in a random place is most of what a send costs.
Of messages whose send was cancelled or failed the names of their batches are kept here; the file is asked for those.
"""

from __future__ import annotations

import itertools
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aioretryq.message import Outgoing

TAG_MEMORY = 60.0
"""Seconds for which a tag, or the name of a batch, that was sent is known."""


class Batch(NamedTuple):
    """A name that no other batch has; and the batches that may have sent some of its messages, by their tags."""

    name: str
    doubts: Mapping[str, str]

    def by_tag(self, message: Outgoing) -> bool:
        return not message.fresh or message.tag in self.doubts


class Sends:
    def __init__(self) -> None:
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._doubts: dict[str, str] = {}
        self._since: dict[str, float] = {}

    @contextmanager
    def batch(self, messages: Sequence[Outgoing], now: float) -> Iterator[Batch]:
        """The block sends the messages; if it raises, whatever it is, that is in doubt."""
        name = f"{self._name}:{next(self._numbers)}"
        try:
            yield Batch(name, self._doubted(messages))
        except BaseException:
            self._forget(now)
            for message in messages:
                if message.fresh and message.tag not in self._doubts:
                    self._doubts[message.tag], self._since[message.tag] = name, now
            raise

    def _doubted(self, messages: Sequence[Outgoing]) -> dict[str, str]:
        if not self._doubts:  # nearly always
            return {}
        return {message.tag: self._doubts[message.tag] for message in messages if message.tag in self._doubts}

    def _forget(self, now: float) -> None:
        old = list(itertools.takewhile(lambda tag: now - self._since[tag] > TAG_MEMORY, self._since))
        for tag in old:
            del self._since[tag], self._doubts[tag]
