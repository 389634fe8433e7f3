"""Dead letters as text for people: a table, and everything about one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from aioretryq.errors import EncodeError
from aioretryq.protocol.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aioretryq.dead_messages import DeadMessage

SHORT_ID = 16
"""Characters of an id that are its time: nearly always enough to tell it from others."""

SHORTEST_ERROR = 30
LONGEST_CELL = 60
LONGEST_ERROR = 300
RAW_BYTES = 300

UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class Row(NamedTuple):
    """A line of the table."""

    id: str
    age: str
    task: str
    queue: str
    reason: str
    attempts: str
    error: str


HEADINGS = Row("ID", "AGE", "TASK", "QUEUE", "REASON", "ATTEMPTS", "ERROR")


def row(found: DeadMessage) -> Row:
    """What a table shows of an entry, of bounded size."""
    return Row(
        found.id,
        duration(found.age),
        shortened(one_line(found.task or "-"), LONGEST_CELL),
        shortened(one_line(found.queue or "-"), LONGEST_CELL),
        shortened(one_line(found.reason), LONGEST_CELL),
        str(found.attempts),
        shortened(one_line((found.error or "-")[: 2 * LONGEST_ERROR]), LONGEST_ERROR),
    )


def table(rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """Lines with aligned columns; errors are cut to what is left of `width`."""
    ids = short_ids([each.id for each in rows])
    lines = [HEADINGS, *(each._replace(id=short) for each, short in zip(rows, ids, strict=True))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS) - 1)]
    room = LONGEST_ERROR if width is None else max(SHORTEST_ERROR, width - sum(widths) - 2 * len(widths))
    for line in lines:
        cells = [cell.ljust(size) for cell, size in zip(line[:-1], widths, strict=True)]
        yield "  ".join([*cells, shortened(line.error, room)]).rstrip()


def short_ids(ids: Sequence[str]) -> list[str]:
    """Their beginnings, long enough to differ; `ids` are sorted, so only neighbours have to be looked at."""
    sizes = [SHORT_ID] * len(ids)
    for index, (one, two) in enumerate(pairwise(ids)):
        same = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
        sizes[index] = max(sizes[index], same + 1)
        sizes[index + 1] = max(sizes[index + 1], same + 1)
    return [one_line(each[:size]) for each, size in zip(ids, sizes, strict=True)]


def details(found: DeadMessage, record: Mapping[str, Any]) -> Iterator[str]:
    """Everything about an entry; `record` is what `DeadLetters.as_dict` makes of it."""
    fields = {
        "id": found.id,
        "reason": found.reason,
        "error": found.error,
        "task": found.task,
        "task id": found.task_id,
        "queue": f"{found.queue}, priority {found.priority}",
        "time": f"{moment(found.time)} ({duration(found.age)} ago)",
        "worker": found.worker,
        "counts": f"{found.attempts} attempts, {found.deliveries} deliveries, {found.interruptions} interruptions",
        "args": record["args"],
        "kwargs": record["kwargs"],
        "payload": f"{len(found.payload):,} bytes",
    }
    for name, value in fields.items():
        if value:
            yield f"{name:<8} {one_line(str(value))}"
    if record["args"] is None:
        yield f"begins   {found.payload[:RAW_BYTES]!r}"
    if found.errors:
        yield "earlier attempts"
        yield from (f"  {attempt(error)}" for error in found.errors)
    if found.traceback:
        yield "traceback"
        yield from (f"  {printable(line)}" for line in found.traceback.splitlines())


def attempt(error: Mapping[str, Any]) -> str:
    when = error.get("time")
    shown = moment(when) if isinstance(when, int | float) else "-"
    return one_line(f"{error.get('attempt')}  {shown}  {error.get('worker')}  {error.get('error')}")


def moment(unix: float) -> str:
    try:
        return format_moment(unix)[:19].replace("T", " ") + " UTC"
    except EncodeError:
        return str(unix)


def duration(seconds: float) -> str:
    """In the largest unit that fits: 45s, 12m, 3h, 2d."""
    unit, size = next(((unit, size) for unit, size in UNITS if seconds >= size), ("s", 1))
    return f"{int(seconds // size)}{unit}"


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Without what could move the cursor: a message comes from anywhere, and a terminal obeys."""
    return "".join(each if each.isprintable() else "?" for each in text.expandtabs(4))


def shortened(text: str, size: int) -> str:
    return text if len(text) <= size else text[: max(size - 3, 0)] + "..."
