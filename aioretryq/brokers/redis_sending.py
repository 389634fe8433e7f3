"""Sending to Redis: a repetition is recognised, and a batch that is not repeated costs no more than its messages.

Who sees a tag twice within a minute adds nothing. For messages that only this broker object sends (`Outgoing.fresh`)
the server keeps one name for a whole batch instead of each tag: a minute of tags is a gigabyte at 100,000 messages a
second. Only where a reply was lost is it asked for by its messages, in whatever batches they come again:

    the batch was carried out           its messages are there
    it was not, and may still come      it is void from now on; its messages are sent, by their tags

So of a message the batch, or one repetition, is carried out, whatever comes late.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aioretryq.brokers.redis_keys import Targets
from aioretryq.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.message import Outgoing

DOUBT = 120.0
"""Seconds for which a lost reply is remembered: senders repeat for a minute, see send.lua."""


class Sends:
    """What one broker object has sent, as far as it is not known whether it arrived."""

    def __init__(self, keys: Keys, name: str) -> None:
        self._keys = keys
        self._name = name
        self._batches = 0
        self._doubts: OrderedDict[str, tuple[str, float]] = OrderedDict()

    @contextmanager
    def script(self, messages: Sequence[Outgoing]) -> Iterator[tuple[list[str], list[Any]]]:
        """Keys and arguments of the script. What the block raises decides whether the reply was lost."""
        self._forget()
        targets = Targets(self._keys)
        groups: dict[int, list[Any]] = {}
        repeated: list[Any] = []
        new = [message for message in messages if message.fresh and message.tag not in self._doubts]
        for message in new:
            number, due, body = targets.encode(message)
            group = groups.setdefault(number, [])
            group += (body,) if due == "" else (due, body)
        for message in messages if len(new) < len(messages) else ():
            if not message.fresh or message.tag in self._doubts:
                batch, _ = self._doubts.get(message.tag, ("", 0))
                repeated += [message.tag, batch, *targets.encode(message)]
        self._batches += 1
        name = f"{self._name}:{self._batches}" if new else ""
        args: list[Any] = [targets.kinds, name, len(groups)]
        # Lists first: who may not add to one is refused before anything is parked, which would be sent again.
        for number, group in sorted(groups.items(), key=lambda item: targets.kinds[item[0] - 1]):
            args += [number, len(group), *group]
        try:
            yield [self._keys.sent, *targets.numbers], [*args, *repeated]
        except BaseException as error:
            refused = isinstance(error, BrokerError)
            if not refused and (not isinstance(error, BrokerUnavailable) or error.maybe_done):
                self._doubt(name, new)
            raise

    def _forget(self) -> None:
        """What nobody repeats any more; not as soon as one repetition is answered, since there may be another."""
        while self._doubts and next(iter(self._doubts.values()))[1] < time.monotonic() - DOUBT:
            self._doubts.popitem(last=False)

    def _doubt(self, batch: str, messages: Sequence[Outgoing]) -> None:
        now = time.monotonic()
        self._doubts.update((message.tag, (batch, now)) for message in messages)
