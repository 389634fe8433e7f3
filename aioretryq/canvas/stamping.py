"""Stamps: values that a workflow's sender puts on every call in it, by which they are found and revoked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.calling import check_stamps
from aioretryq.canvas.signature import Signature, of_node
from aioretryq.linking import node_of
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.signature import Node, as_dict, listed
from aioretryq.workflows.shapes import each_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioretryq.canvas.apps import App

Stamps = dict[str, Any]


class StampingVisitor(ABC):
    """Says which stamps each part of a workflow gets, while `stamp` goes through it: subclass it.

    What a method returns is put on what it is called with, and on all that is in it. `headers` are the stamps from
    further out; a key `stamped_headers` with names makes only those stamps.
    """

    @abstractmethod
    def on_signature(self, sig: Signature[Any, Any], **headers: Any) -> Stamps | None:
        """Each call."""

    def on_group_start(self, group: Signature[Any, Any], **headers: Any) -> Stamps | None:
        """Each group, before its members: they get these stamps, too."""
        return {}

    def on_group_end(self, group: Signature[Any, Any], **headers: Any) -> None:
        """After its members."""
        return

    def on_chain_start(self, chain: Signature[Any, Any], **headers: Any) -> Stamps | None:
        """Each chain, before its steps: they get these stamps, too."""
        return {}

    def on_chain_end(self, chain: Signature[Any, Any], **headers: Any) -> None:
        """After its steps."""
        return

    def on_chord_header_start(self, sig: Any, **headers: Any) -> Stamps | None:
        """With the chord; as if its header were a group, if you do not say otherwise."""
        return self.on_group_start(sig.header, **headers)

    def on_chord_header_end(self, sig: Any, **headers: Any) -> None:
        """With the chord, after the members of its header."""
        self.on_group_end(sig.header, **headers)

    def on_chord_body(self, sig: Any, **headers: Any) -> Stamps | None:
        """With the chord. Its body gets the stamps of the header, too."""
        return {}

    def on_callback(self, callback: Signature[Any, Any], **headers: Any) -> Stamps | None:
        """Each `link`."""
        return {}

    def on_errback(self, errback: Signature[Any, Any], **headers: Any) -> Stamps | None:
        """Each `link_error`."""
        return {}


def stamped(node: Node, visitor: StampingVisitor | None, stamps: Stamps, *, append: bool, app: App = None) -> Node:
    """With the stamps, and those of the visitor, on every call in it."""
    _check(stamps)
    return _Round(visitor, append, app).stamped(node, stamps)


def links_stamped(
    node: Node, visitor: StampingVisitor | None, stamps: Stamps, *, append: bool, app: App = None
) -> Node:
    """On what is linked to it only."""
    _check(stamps)
    return _Round(visitor, append, app).with_links(node, stamps)


class _Round:
    """One walk of a visitor through a workflow."""

    def __init__(self, visitor: StampingVisitor | None, append: bool, app: App) -> None:
        if visitor is not None and not hasattr(visitor, "on_signature"):
            given = saferepr(visitor, 100)
            raise TypeError(f"Stamps are given by name, `stamp(tenant='a')`, or by a visitor: {given} is none.")
        self._visitor = visitor
        self._append = append
        self._app = app

    def stamped(self, node: Node, stamps: Stamps) -> Node:
        match node.kind:
            case "group":
                return self._steps(node, stamps, "group")[0]
            case "chain":
                return self._steps(node, stamps, "chain")[0]
            case "chord":
                return self._chord(node, stamps)
        node = self.with_links(node, stamps)
        found = self._merged(node, self._asked("on_signature", node, stamps), stamps)
        return node.with_options(**found)

    def with_links(self, node: Node, stamps: Stamps) -> Node:
        for option, asked in (("link", "on_callback"), ("link_error", "on_errback")):
            links = listed(node.options.get(option))
            if not links:
                continue
            given, written = stamps, []
            for link in map(node_of, links):
                given = self._merged(None, self._asked(asked, link, given), given)
                written.append(as_dict(self.stamped(link, given)))
            node = node.with_options(**{option: written})
        return node

    def _steps(self, node: Node, stamps: Stamps, whose: str) -> tuple[Node, Stamps]:
        """With the steps of a chain, the members of a group or the header of a chord stamped; and what they got."""
        found = self._merged(node, self._asked(f"on_{whose}_start", node, stamps), stamps)
        node = self.with_links(node, found)
        node = replace(node, steps=each_of(node.steps, lambda step: self.stamped(step, found)))
        self._asked(f"on_{whose}_end", node, found)
        return node, found

    def _chord(self, node: Node, stamps: Stamps) -> Node:
        node, found = self._steps(node, stamps, "chord_header")
        if node.body is None:
            return node
        # Also without a visitor, where Celery leaves it out: who revokes by a stamp means the whole workflow.
        of_body = self._merged(node, self._asked("on_chord_body", node, found), found)
        return replace(node, body=self.stamped(node.body, of_body))

    def _asked(self, method: str, node: Node, stamps: Stamps) -> Stamps | None:
        if self._visitor is None:
            return None
        answer: Stamps | None = getattr(self._visitor, method)(of_node(node, self._app), **_copied(stamps))
        found = dict(answer or {})
        _check(found)
        return found

    def _merged(self, node: Node | None, answered: Stamps | None, stamps: Stamps) -> Stamps:
        """All stamps of a node: from further out, the visitor's, and those that it has; the first found wins."""
        found = _copied(stamps)
        found.setdefault("stamped_headers", list(found))
        if answered is not None:
            answered.setdefault("stamped_headers", list(answered))
            found = _with(found, answered, self._append)
        if node is not None:
            names = [*(found["stamped_headers"] or ()), *(node.options.get("stamped_headers") or ())]
            own = {name: node.options[name] for name in names if name in node.options}
            found = _with({**found, "stamped_headers": names}, own, self._append)
        return {**found, "stamped_headers": list(dict.fromkeys(found["stamped_headers"]))}


def _check(stamps: Stamps) -> None:
    check_stamps(stamps.get("stamped_headers", stamps) or (), "a workflow that is stamped")


def _with(stamps: Stamps, more: Mapping[str, Any], append: bool) -> Stamps:
    """Celery's way: what is in both stays (`append`: becomes a list of both), but lists and dictionaries grow."""
    found = {name: _both(value, more[name], append) if name in more else value for name, value in stamps.items()}
    return {**found, **{name: value for name, value in more.items() if name not in found}}


def _both(value: Any, other: Any, append: bool) -> Any:
    if isinstance(value, dict):
        return _with(value, other, append) if other else value
    if append and isinstance(value, int | float | str):
        value = [value]
    if isinstance(value, list) and isinstance(other, list):
        return [*value, *other]
    if not append:
        return value
    return [*(() if value is None else value), other]


def _copied(stamps: Stamps) -> Stamps:
    return {name: list(value) if isinstance(value, list) else value for name, value in stamps.items()}
