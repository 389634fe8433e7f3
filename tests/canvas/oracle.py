"""What becomes of a composed workflow (a dictionary as Celery and we write it), by plain recursion: no ids, no
messages, no order of events. The calls are those of `tree_tasks`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from canvas.tree_tasks import ERRORS, add, broken, echo

Composed: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Value:
    value: Any


@dataclass(frozen=True)
class Failed:
    """As it is written inside of another one's message; ids are `<id>`."""

    shown: str

    @property
    def type(self) -> str:
        return self.shown.partition("(")[0]


class ChordError(Exception):
    """Only its name is needed here."""


IDS = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def failure(error: BaseException) -> Failed:
    return Failed(IDS.sub("<id>", repr(error)))


@dataclass(frozen=True)
class Members:
    """Of a group."""

    each: tuple[Outcome, ...]
    cause: Failed | None = field(default=None, compare=False)
    """Why none of them is run."""


Outcome: TypeAlias = Value | Failed | Members


@dataclass
class Run:
    """One workflow, run in the mind; `log` gets what its calls note, in any order.

    `backwards`: Celery's client turns the members of a group round that is in another group, unless the outer one is
    all there is.
    """

    backwards: bool = False
    eager: bool = False
    """As Celery runs it in the process that composes it."""
    log: list[str] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    """Of calls that were made, in no order."""
    ambiguous: bool = False
    """Several parts of a header with groups in it have failed: which of them is named depends on indices of parts."""

    def outcome(self, node: Composed) -> Outcome | None:
        """Of the whole; None if there is nothing in it."""
        node = node if self.eager else returning(node)
        if node["subtask_type"] == "chain" and not spliced(node):
            return None
        if node["subtask_type"] == "group":
            found: Outcome = Members(tuple(self._of(member, ()) for member in unrolled(members_of(node))))
        else:
            found = self._of(node, ())
        while (
            not self.eager
            and isinstance(found, Members)
            and len(found.each) == 1
            and isinstance(found.each[0], Members)
        ):
            found = found.each[0]  # a group of one chain that ends in a group is that group
        return found

    def _of(self, node: Composed, args: tuple[Any, ...]) -> Outcome:
        match node["subtask_type"]:
            case "chain":
                steps = with_headers(spliced(node))
                found = self._of(steps[0], args)
                for step in steps[1:]:
                    found = self._after(found, step)
                return found
            case "group":
                return Members(tuple(self._of(member, args) for member in self._unrolled(members_of(node))))
            case "chord":
                header = Members(tuple(self._of(part, args) for part in self._unrolled(header_of(node))))
                return self._after(header, node["kwargs"]["body"])
        return self._call(node, args)

    def _after(self, before: Outcome, node: Composed) -> Outcome:
        """A step of a chain, or the body of a chord; a group before it is a header."""
        if (cause := before if isinstance(before, Failed) else getattr(before, "cause", None)) is not None:
            return everywhere(node, cause)
        if isinstance(before, Members) and (failures := list(failed(before))):
            nested = any(isinstance(member, Members) for member in before.each)
            self.ambiguous |= nested and len(set(failures)) > 1
            return self._body_failed(node, failures[0])
        return self._of(node, (plain(before),))

    def _body_failed(self, node: Composed, cause: Failed) -> Outcome:
        """The body of a chord with a part that failed of `cause`."""
        error = failure(ChordError(f"Dependency <id> raised {cause.shown}"))
        reason = cause if node["subtask_type"] == "group" else error
        for call in answerable(node):
            self._tell(call, reason)
        return everywhere(node, reason)

    def _unrolled(self, members: list[Composed]) -> Iterable[Composed]:
        return unrolled(members, backwards=self.backwards)

    def _call(self, node: Composed, args: tuple[Any, ...]) -> Outcome:
        if node == NOTHING:
            return Value([])
        args = tuple(node["args"]) if node["immutable"] else (*args, *node["args"])
        at, by, name = node["kwargs"]["at"], node["kwargs"].get("by", 0), node["task"].removeprefix("t.")
        if name == "fail":
            self.log.append(f"{at} fail")
            found = failure(ERRORS[node["kwargs"]["error"]](broken(at)))
            self.failures.append(found)
            self._tell(node, found)
            return found
        self.log += [f"{at} flaky 0", f"{at} flaky 1"] if name == "flaky" else [f"{at} {name}"]
        value = add(*args, by=by) if name == "add" else echo(*args, by=by)
        self.log += [f"{callback['kwargs']['at']} linked {value}" for callback in listed(node, "link")]
        return Value(value)

    def _tell(self, node: Composed, error: Failed) -> None:
        self.log += [f"{errback['kwargs']['at']} told {error.type}" for errback in listed(node, "link_error")]


def with_headers(steps: list[Composed]) -> list[Composed]:
    """Each group that something follows is the header of a chord."""
    found: list[Composed] = []
    for step in reversed(steps):
        if step["subtask_type"] == "group" and found:
            found.append(
                {**step, "subtask_type": "chord", "kwargs": {"header": members_of(step), "body": found.pop()}}
            )
        else:
            found.append(step)
    return found[::-1]


NOTHING: Composed = {
    "task": "celery.accumulate",
    "args": [],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": True,
}


def returning(node: Composed, *, part: bool = False) -> Composed:
    """With a call that returns an empty list in place of each empty group that a part of another group ends in: of
    the empty one nothing would return to who counts."""
    kwargs = node["kwargs"]
    match node["subtask_type"]:
        case "chain":
            if not (steps := spliced(node)):
                return node
            steps = [*map(returning, steps[:-1]), returning(steps[-1], part=part)]
            return {**node, "kwargs": {"tasks": steps}}
        case "group":
            if part and not list(unrolled([node])):
                return NOTHING
            return {**node, "kwargs": {"tasks": list(map(_member, members_of(node)))}}
        case "chord":
            header = list(map(_member, header_of(node)))
            return {**node, "kwargs": {**kwargs, "header": header, "body": returning(kwargs["body"], part=part)}}
    return node


def _member(node: Composed) -> Composed:
    return returning(node, part=node["subtask_type"] != "group")


def spliced(chain: Composed) -> list[Composed]:
    """The steps of a chain and of the chains in it. A group of one is its member; an empty one is no step, unless
    there is nothing else."""
    flat: list[Composed] = []
    empty: list[Composed] = []
    for step in members_of(chain):
        while step["subtask_type"] == "group" and len(members_of(step)) == 1:
            step = members_of(step)[0]
        if step["subtask_type"] == "chain":
            flat += spliced(step)
        elif step["subtask_type"] == "group" and not list(unrolled([step])):
            empty.append(step)
        else:
            flat.append(step)
    return flat or empty[-1:]


def unrolled(members: list[Composed], *, backwards: bool = False) -> Iterable[Composed]:
    """A group in a group, or in a header, is its members; a chain of nothing is none."""
    for member in members:
        if member["subtask_type"] == "group":
            inner = members_of(member)
            yield from unrolled(inner[::-1] if backwards else inner, backwards=backwards)
        elif member["subtask_type"] != "chain" or members_of(member):
            yield member


def members_of(node: Composed) -> list[Composed]:
    found: list[Composed] = node["kwargs"]["tasks"]
    return found


def header_of(chord: Composed) -> list[Composed]:
    header = chord["kwargs"]["header"]
    return header if isinstance(header, list) else members_of(header)


def listed(node: Composed, option: str) -> list[Composed]:
    found = node["options"].get(option) or []
    return found if isinstance(found, list) else [found]


def answerable(body: Composed) -> Iterable[Composed]:
    """Whose errbacks are told that a body cannot be called: those of the calls it begins with."""
    match body["subtask_type"]:
        case "group":
            for member in unrolled(members_of(body)):
                yield from answerable(member)
        case "chord":
            yield from answerable(body["kwargs"]["body"])
        case "chain":
            for first in spliced(body)[:1]:
                yield from answerable(first) if first["subtask_type"] != "group" else ()
        case _:
            yield body


def everywhere(node: Composed, error: Failed) -> Outcome:
    """The result of what is not run, for that."""
    match node["subtask_type"]:
        case "chain":
            return everywhere(spliced(node)[-1], error)
        case "group":
            return Members(tuple(everywhere(member, error) for member in unrolled(members_of(node))), error)
        case "chord":
            return everywhere(node["kwargs"]["body"], error)
    return error


def failed(outcome: Outcome) -> Iterable[Failed]:
    match outcome:
        case Failed():
            yield outcome
        case Members(each):
            for member in each:
                yield from failed(member)


def plain(outcome: Outcome) -> Any:
    """The value; of a group, a list."""
    match outcome:
        case Value(value):
            return value
        case Members(each):
            return [plain(member) for member in each]
    raise AssertionError(f"{outcome} is no value")


def everything(runs: Iterable[Run]) -> Counter[str]:
    """What the calls of all of them note."""
    return Counter(line for run in runs for line in run.log)
