"""Sending to Redis: a repetition is recognised, and a batch that is not repeated costs no more than its messages.

Who sees a tag twice within a minute adds nothing. For messages that only this broker object sends (`Outgoing.fresh`)
the server keeps no tags: a minute of them is a gigabyte at 100,000 messages a second. It has a record, one key with
the number of the last batch; a record has one batch at a time under way. Only where a reply was lost is it asked for
by the batch's messages, in whatever batches they come again:

    the batch was carried out           its messages are there
    it was not, and may still come      the record is void from now on; its messages are sent, by their tags

So of a message the batch, or one repetition, is carried out, whatever comes late.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aioretryq.brokers.redis_keys import Targets, bucket_of
from aioretryq.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.message import Outgoing

    Run = Callable[[str, Sequence[str], Sequence[Any]], Awaitable[object]]

DOUBT = 120.0
"""Seconds for which a lost reply is remembered: senders repeat for a minute."""

RECORD = 60.0
"""Seconds for which a record is used. The server keeps it for 180: it outlasts each of its batches by DOUBT."""


class _Record:
    __slots__ = ("key", "number", "since")

    def __init__(self, key: str, since: float) -> None:
        self.key = key
        self.number = 1  # so the first batch has number 2, which is not what the server counts: it writes it then
        self.since = since


class Sends:
    """What one broker object has sent, as far as it is not known whether it arrived."""

    def __init__(self, keys: Keys, name: str) -> None:
        self._keys = keys
        self._name = name
        self._records = 0
        self._free: list[_Record] = []  # the last of whose batches was answered
        self._doubts: OrderedDict[str, tuple[str, int, float]] = OrderedDict()

    def send(self, messages: Sequence[Outgoing], run: Run) -> Awaitable[None]:
        """`run` calls a script. What it raises decides whether the reply was lost."""
        if self._doubts:
            self._forget()
        for message in messages:
            if not message.fresh or message.tag in self._doubts:
                return self._send_once(messages, run)
        return self._send_new(messages, run)

    async def _send_new(self, messages: Sequence[Outgoing], run: Run) -> None:
        record = self._record()
        record.number += 1
        lists, schedules = self._grouped(messages)
        # Lists first: who may not add to one is refused before anything is parked, which would be sent again.
        args: list[Any] = [record.number, "l" * len(lists) + "z" * len(schedules)]
        for values in (*lists.values(), *schedules.values()):
            args += (len(values), *values)
        try:
            await run("send", (record.key, *lists, *schedules), args)
        except BaseException as error:
            if _is_doubtful(error):
                self._doubt(messages, record.key, record.number)
            else:
                self._free.append(record)
            raise
        self._free.append(record)

    def _record(self) -> _Record:
        now = time.monotonic()
        while self._free:
            record = self._free.pop()
            if now - record.since < RECORD:
                return record
        self._records += 1
        return _Record(f"{self._keys.sent}.{self._name}:{self._records}", now)

    def _grouped(self, messages: Sequence[Outgoing]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """What each list, and each schedule, is to get."""
        if len(messages) == 1 and messages[0].due is None:
            return {self._list_of(messages[0]): [messages[0].body]}, {}
        lists: dict[str, list[Any]] = {}
        schedules: dict[str, list[Any]] = {}
        places: dict[tuple[str, int], list[Any]] = {}  # the same lists: nearly all messages go to the same place
        for message in messages:
            if message.due is not None:
                _, due, member = Targets(self._keys).encode(message)
                schedules.setdefault(self._keys.schedule(message.queue), []).extend((due, member))
                continue
            place = message.queue, message.priority
            values = places.get(place)
            if values is None:
                values = places[place] = lists.setdefault(self._list_of(message), [])
            values.append(message.body)
        return lists, schedules

    def _list_of(self, message: Outgoing) -> str:
        return self._keys.bucket(message.queue, bucket_of(message.priority))

    async def _send_once(self, messages: Sequence[Outgoing], run: Run) -> None:
        targets = Targets(self._keys)
        batches = [self._doubts.get(message.tag, ("", 0, 0.0))[:2] for message in messages]
        encoded = [targets.encode(message) for message in messages]
        records = {record: "" for record, _ in batches if record}
        for number, record in enumerate(records, len(targets.numbers) + 1):
            records[record] = str(number)
        args: list[Any] = [targets.kinds]
        for message, target, (record, number) in zip(messages, encoded, batches, strict=True):
            args += (message.tag, *target, records.get(record, ""), number)
        try:
            await run("send_once", [self._keys.sent, *targets.numbers, *records], args)
        except BaseException as error:
            if _is_doubtful(error):
                self._doubt([each for each in messages if each.fresh and each.tag not in self._doubts])
            raise

    def _forget(self) -> None:
        """What nobody repeats any more; not as soon as one repetition is answered, since there may be another."""
        while self._doubts and next(iter(self._doubts.values()))[2] < time.monotonic() - DOUBT:
            self._doubts.popitem(last=False)

    def _doubt(self, messages: Sequence[Outgoing], record: str = "", number: int = 0) -> None:
        now = time.monotonic()
        self._doubts.update((message.tag, (record, number, now)) for message in messages)


def _is_doubtful(error: BaseException) -> bool:
    """Whether what was asked may have been done, or still be."""
    if isinstance(error, BrokerUnavailable):
        return error.maybe_done
    return not isinstance(error, BrokerError)
