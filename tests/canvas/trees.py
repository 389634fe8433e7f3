"""Random workflows, as values: built by Celery's API or by ours, and evaluated by plain recursion.

`expected` is what Celery's workers, and ours, make of such a tree; `tests/interop/test_trees_live.py` holds it, and
both of them, against each other. A call notes that it ran under the label of its place in the tree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from canvas.tree_tasks import ERRORS
from hypothesis import strategies as st

MOST_CALLS = 20
"""In one tree. Chords of chords would grow to hundreds, which says nothing more."""


@dataclass(frozen=True)
class Call:
    name: str
    args: tuple[Any, ...] = ()
    by: int = 0
    immutable: bool = False
    error: str = ""
    """Of `fail`: what it raises."""
    links: int = 0
    errbacks: int = 0


@dataclass(frozen=True)
class Chain:
    steps: tuple[Tree, ...]
    piped: bool = False
    """Composed by `|`, which keeps a group of one at the head where `chain` takes its member."""


@dataclass(frozen=True)
class Group:
    members: tuple[Tree, ...]


@dataclass(frozen=True)
class Chord:
    header: tuple[Tree, ...]
    body: Tree


Tree: TypeAlias = Call | Chain | Group | Chord


# -- drawing trees

Choose: TypeAlias = Callable[[Sequence[Any]], Any]
"""One of several: by hypothesis, or by a random number generator that always begins alike."""


def grown(choose: Choose, depth: int) -> Tree:
    """A workflow nested at most so deep; a call is one of depth 1."""
    kind = "call" if depth <= 1 else choose(["call", "chain", "chain", "group", "chord"])
    if kind == "call":
        return _grown_call(choose)
    if kind == "chain":
        return Chain(_some(choose, depth, [1, 2, 2, 3]), choose([False, True]))
    if kind == "group":
        return Group(_some(choose, depth, [0, 1, 2, 2, 3]))
    return Chord(_some(choose, depth, [0, 1, 2, 2, 3]), grown(choose, depth - 1))


def _some(choose: Choose, depth: int, counts: list[int]) -> tuple[Tree, ...]:
    return tuple(grown(choose, depth - 1) for _ in range(choose(counts)))


def _grown_call(choose: Choose) -> Call:
    name = choose("add add add add echo echo echo echo flaky fail".split())
    args = choose([(), (), (1,), (2, 3)])
    if name == "fail":
        return Call(name, args, error=choose(sorted(ERRORS)), errbacks=choose([0, 0, 1]))
    return Call(
        name,
        args,
        choose([0, 0, 5]),
        choose([False] * 4 + [True]),
        links=choose([0] * 5 + [1]),
        errbacks=choose([0, 0, 1]),
    )


def trees(depth: int = 4) -> st.SearchStrategy[Tree]:
    """As hypothesis draws them."""

    @st.composite
    def drawn_tree(draw: st.DrawFn) -> Tree:
        return grown(lambda values: draw(st.sampled_from(values)), depth)

    return drawn_tree().filter(lambda tree: 1 <= size(tree) <= MOST_CALLS and not lacks_a_body(tree))


def drawn(count: int, seed: int = 1, depth: int = 4) -> list[Tree]:
    """So many different ones, the same in every run."""
    choose = random.Random(seed).choice
    found: dict[Tree, None] = {}
    while len(found) < count:
        tree = grown(choose, depth)
        if not isinstance(tree, Call) and 2 <= size(tree) <= MOST_CALLS and not lacks_a_body(tree):
            found.setdefault(tree)
    return list(found)


_ONE = Call("add", (1,))
END_IN_NOTHING: tuple[Tree, ...] = (
    Chord((Chain((Group(()),)), _ONE), _ONE),
    Chord((Chord((_ONE,), Group(())), _ONE), Call("echo")),
    Group((Chord((_ONE,), Group(())), Chain((Group(()),)), _ONE)),
    Chain(
        (_ONE, Chord((Call("fail", error="KeyError"),), Chain((Chord((), Group(())),))), Group((_ONE, _ONE)), _ONE)
    ),
)
"""Parts of groups in which the last thing is an empty group: seldom drawn."""


def size(tree: Tree) -> int:
    """How many calls are in it."""
    return sum(isinstance(part, Call) for part in parts(tree))


def lacks_a_body(tree: Tree) -> bool:
    """Whether some body is a chain of several empty groups: composed, that is a chain without steps, and refused."""
    bodies = [part.body for part in parts(tree) if isinstance(part, Chord)]
    return any(isinstance(body, Chain) and not size(body) and body != Chain((Group(()),)) for body in bodies)


def parts(tree: Tree) -> Iterator[Tree]:
    """It, and all that is in it."""
    yield tree
    for child in children(tree):
        yield from parts(child)


def children(tree: Tree) -> tuple[Tree, ...]:
    match tree:
        case Call():
            return ()
        case Chain():
            return tree.steps
        case Group():
            return tree.members
    return (*tree.header, tree.body)


# -- building them


class Api(Protocol):
    """How to compose: Celery's functions, or ours."""

    def signature(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], immutable: bool) -> Any: ...

    def link(self, signature: Any, callback: Any) -> Any: ...

    def link_error(self, signature: Any, errback: Any) -> Any: ...

    def chain(self, *steps: Any) -> Any: ...

    def group(self, members: list[Any]) -> Any: ...

    def chord(self, header: list[Any], body: Any) -> Any: ...


def built(tree: Tree, api: Api, label: str) -> Any:
    """The signature of a tree; its calls note themselves as `label`, and where they are in the tree."""
    match tree:
        case Call():
            return _call(tree, api, label)
        case Chain(steps, piped):
            made = [built(step, api, f"{label}.{n}") for n, step in enumerate(steps)]
            if not piped:
                return api.chain(*made)
            found = made[0]
            for step in made[1:]:
                found = found | step
            return found
        case Group(members):
            return api.group([built(member, api, f"{label}.{n}") for n, member in enumerate(members)])
        case Chord(header, body):
            parts_ = [built(member, api, f"{label}.{n}") for n, member in enumerate(header)]
            return api.chord(parts_, built(body, api, f"{label}.b"))


def _call(call: Call, api: Api, label: str) -> Any:
    kwargs: dict[str, Any] = {"at": label}
    if call.error:
        kwargs["error"] = call.error
    if call.by:
        kwargs["by"] = call.by
    made = api.signature(f"t.{call.name}", call.args, kwargs, call.immutable)
    for n in range(call.links):
        made = api.link(made, api.signature("t.linked", (), {"at": f"{label}.l{n}"}, False))
    for n in range(call.errbacks):
        made = api.link_error(made, api.signature("t.told", (), {"at": f"{label}.e{n}"}, False))
    return made
