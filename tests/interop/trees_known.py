"""Where Celery's workers differ from the oracle, and why. Each is about a kind of tree, never about one tree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from canvas.oracle import NOTHING, Composed, Failed, Members, Run, header_of, members_of, returning, spliced


@dataclass(frozen=True)
class Seen:
    """What became of a tree: its outcome, and what its calls have noted."""

    outcome: Any
    log: Counter[str]


@dataclass(frozen=True)
class Known:
    """In trees of this kind both sides are seen through `alike`, which is given what was expected as well."""

    reason: str
    of_kind: Callable[[Composed, Run], bool]
    alike: Callable[[Seen, Seen], Seen]


def is_nested_and_fails(tree: Composed, run: Run) -> bool:
    return bool(run.failures) and sum(part["subtask_type"] in ("group", "chord") for part in inside(tree)) > 1


def a_chord_fails(tree: Composed, run: Run) -> bool:
    return bool(run.failures) and any(part["subtask_type"] == "chord" for part in inside(tree))


def a_header_with_groups_fails(tree: Composed, run: Run) -> bool:
    return bool(run.failures) and any(
        ends_in_group(member)
        for part in inside(tree)
        if part["subtask_type"] == "chord"
        for member in header_of(part)
    )


def steps_after_a_group_body(tree: Composed, run: Run) -> bool:
    return any(
        ends_in_group(step) and step["subtask_type"] == "chord"
        for part in inside(tree)
        if part["subtask_type"] == "chain"
        for step in spliced(part)[:-1]
    )


def came(seen: Seen, expected: Seen) -> Seen:
    """With what is expected where nothing came."""
    return replace(seen, outcome=_came(seen.outcome, expected.outcome))


def _came(found: Any, expected: Any) -> Any:
    if found is None and isinstance(expected, Failed):
        return expected
    if isinstance(found, Members) and isinstance(expected, Members) and len(found.each) == len(expected.each):
        return Members(tuple(map(_came, found.each, expected.each)))
    return found


def untold(seen: Seen, expected: Seen) -> Seen:
    return replace(seen, log=Counter({line: count for line, count in seen.log.items() if " told " not in line}))


def of_any_cause(seen: Seen, expected: Seen) -> Seen:
    return replace(seen, outcome=_of_any_cause(seen.outcome))


def _of_any_cause(found: Any) -> Any:
    if isinstance(found, Failed):
        return Failed(re.sub(r".*(ValueError|KeyError|ZeroDivisionError)\(.*", "failed", found.shown))
    return Members(tuple(map(_of_any_cause, found.each))) if isinstance(found, Members) else found


def places(seen: Seen) -> set[str]:
    return {line.partition(" ")[0] for line in seen.log}


def run_more_often(seen: Seen, expected: Seen) -> Seen:
    """All that is to be run is, and nothing else."""
    return expected if places(seen) == places(expected) else seen


def whatever(seen: Seen, expected: Seen) -> Seen:
    return expected


AMBIGUOUS = Known(
    "Where several parts of a header that holds groups have failed, any of them is named.",
    lambda tree, run: run.ambiguous,
    of_any_cause,
)
UNCOUNTED = Known(
    "Of a part that ends in an empty group Celery's client lets nothing return: what is around it waits for ever.",
    lambda tree, run: run.backwards and NOTHING in inside(returning(tree)),
    whatever,
)
OF_CELERYS_CLIENT = (AMBIGUOUS, UNCOUNTED)
"""Whoever runs what it has sent."""
OF_CELERY = {
    "uncounted": UNCOUNTED,
    "lost": Known(
        "The end of a chord that fails is told to its body only: not to the chord it is a part or the body of, nor "
        "to the members of a group that would have followed. Those wait for ever.",
        is_nested_and_fails,
        came,
    ),
    "untold": Known(
        "Errbacks of the first step of a body that is a chain are not called, nor those in a body that is a chord.",
        a_chord_fails,
        untold,
    ),
    "joined": Known(
        "A header that holds groups fails of `Join error`, and of the part that is read first.",
        a_header_with_groups_fails,
        of_any_cause,
    ),
    "per member": Known(
        "What follows a chord whose body is a group is run by each member of the group.",
        steps_after_a_group_body,
        run_more_often,
    ),
}


def alike(expected: Seen, found: Seen, known: list[Known]) -> bool:
    for each in known:
        expected, found = each.alike(expected, expected), each.alike(found, expected)
    return (expected.outcome, expected.log) == (found.outcome, found.log)


def inside(tree: Composed) -> Iterator[Composed]:
    """It, and all workflows and calls in it."""
    yield tree
    match tree["subtask_type"]:
        case "chain" | "group":
            parts = members_of(tree)
        case "chord":
            parts = [*header_of(tree), tree["kwargs"]["body"]]
        case _:
            parts = []
    for part in parts:
        yield from inside(part)


def ends_in_group(tree: Composed) -> bool:
    match tree["subtask_type"]:
        case "group":
            return True
        case "chain":
            steps = spliced(tree)
            return bool(steps) and ends_in_group(steps[-1])
        case "chord":
            return ends_in_group(tree["kwargs"]["body"])
    return False


__all__ = ["AMBIGUOUS", "OF_CELERY", "OF_CELERYS_CLIENT", "UNCOUNTED", "Known", "Seen", "alike", "inside"]
