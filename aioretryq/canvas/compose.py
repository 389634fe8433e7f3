"""Constructors: `chain`, `group`, `chord`, `signature`. What they take is a signature of ours or Celery's, the
dictionary of one, or a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

from aioretryq.calling import Callee
from aioretryq.canvas.apps import FirstApp, app_of
from aioretryq.canvas.kinds import Chain, Chord, Group
from aioretryq.canvas.signature import Signature, composed, of_node
from aioretryq.linking import checked_options, node_of, node_of_call
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import CHAIN, GROUP, Node, chain_of, chord_of, group_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeVar

    from aioretryq.calling import Link
    from aioretryq.canvas.apps import App

    R = TypeVar("R")
    T = TypeVar("T")


@overload
def signature(
    of: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    app: App = None,
    **more: Any,
) -> Signature[Any]: ...
@overload
def signature(of: Signature[R, T], *, app: App = None) -> Signature[R, T]: ...
@overload
def signature(of: Link, *, app: App = None) -> Signature[Any, Any]: ...
def signature(
    of: str | Link,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    app: App = None,
    **more: Any,
) -> Signature[Any, Any]:
    """A call of the task of that name; or what a dictionary, a task or a signature of Celery's says.

    Raises ConfigError for no name and for options that no call has, ProtocolError for a dictionary that is no
    signature, TypeError for arguments that are none.
    """
    if isinstance(of, str):
        given = {**(options or {}), **more}
        return Signature(node_of_call(of, args, kwargs, given, immutable=immutable), app)
    return of_node(node_of(of), app or app_of(of))


@overload
def chain(last: Signature[R, T], /, **options: Any) -> Signature[R, T]: ...
@overload
def chain(first: Link, last: Signature[R, T], /, **options: Any) -> Signature[R, T]: ...
@overload
def chain(first: Link, second: Link, last: Signature[R, T], /, **options: Any) -> Signature[R, T]: ...
@overload
def chain(a: Link, b: Link, c: Link, last: Signature[R, T], /, **options: Any) -> Signature[R, T]: ...
@overload
def chain(*tasks: Any, **options: Any) -> Signature[Any, Any]: ...
def chain(*tasks: Any, **options: Any) -> Signature[Any, Any]:
    """`chain(a, b, c)`, or of an iterable: `a | b | c`. A chain, or what else `|` makes of them: it may be a chord.

    With options they stay as they are: every step is one, also a group, whose follower then gets the list.
    """
    given = list(_one_or_many(tasks))
    nodes, app = [node_of(each) for each in given], _first_app(given)
    if options or (len(tasks) == 1 and _is_one(tasks[0])):
        return Chain(chain_of(nodes, **checked_options(options, "celery.chain")), app)
    return composed(lambda joining: joining.folded(nodes), app)


@overload
def group(tasks: Iterable[Signature[R, Any]], /, **options: Any) -> Group[R]: ...
@overload
def group(*tasks: Signature[R, Any], **options: Any) -> Group[R]: ...
@overload
def group(*tasks: Any, **options: Any) -> Group[Any]: ...
def group(*tasks: Any, **options: Any) -> Group[Any]:
    """Calls and workflows to run at the same time: `group(a, b)`, or of an iterable.

    Those of a generator are made when they are sent, one by one, so that there may be a million: a second sending, if
    they are more than a thousand, is a ConfigError.
    """
    if len(tasks) == 1 and isinstance(tasks[0], Iterator):
        made = Members[Any](tasks[0])
        return Group(group_of(made.map(node_of), **checked_options(options, "celery.group")), FirstApp(made))
    given = list(_one_or_many(tasks))
    nodes = [node_of(each) for each in given]
    steps = nodes[0].steps if len(tasks) == 1 and _is_one(tasks[0]) and nodes[0].kind == GROUP else nodes
    return Group(group_of(steps, **checked_options(options, "celery.group")), _first_app(given))


@overload
def chord(header: Any, body: Signature[R, T], **options: Any) -> Chord[R, T]: ...
@overload
def chord(header: Any, body: Link | None = None, **options: Any) -> Chord[Any, Any]: ...
def chord(header: Any, body: Any = None, **options: Any) -> Chord[Any, Any]:
    """Calls to run at the same time, and a body to call with the list of their values when all are done.

    The header is a group, an iterable (of a generator as in `group`), or one signature; the steps of a chain run at
    the same time, too. `chord(header)(body)` is `chord(header, body)`, sent.
    """
    last = None if body is None else node_of(body)
    given = checked_options(options, "celery.chord")
    if isinstance(header, Iterator):
        made = Members[Any](header)
        return Chord(chord_of(group_of(made.map(node_of)), last, **given), FirstApp(made, app_of(body)))
    parts = list(_one_or_many((header,)))
    nodes = [node_of(each) for each in parts]
    return Chord(chord_of(_header(nodes, _is_one(header)), last, **given), _first_app([*parts, body]))


def _header(nodes: list[Node], one: bool) -> Node:
    """A group keeps its options, where Celery forgets them; those of a chain are for its steps as such."""
    if one and nodes[0].kind == GROUP:
        return nodes[0]
    return group_of(nodes[0].steps if one and nodes[0].kind == CHAIN else nodes)


def _one_or_many(tasks: Sequence[Any]) -> Iterable[Any]:
    """What was given one by one, or as the only argument in an iterable."""
    if len(tasks) != 1 or _is_one(tasks[0]):
        return tasks
    if not isinstance(tasks[0], Iterable) or isinstance(tasks[0], str | bytes):
        node_of(tasks[0])  # says what is wrong with it
    found: Iterable[Any] = tasks[0]
    return found


def _is_one(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, Callee) and not isinstance(value, Iterable))


def _first_app(values: Iterable[Any]) -> App:
    return next((app for app in map(app_of, values) if app is not None), None)
