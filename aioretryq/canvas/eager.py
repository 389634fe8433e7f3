"""Signatures run in place, without a broker: `await signature.apply()`.

What comes of it is what workers would have made of it, not what Celery's `apply` does where the two differ:

- A header that fails makes its body fail, with ChordError; who waits for the body gets the header's own exception, as
  from workers. Celery raises it out of `apply`.
- A failed step gives the steps after it that failure as their result; Celery raises it at the next step.
- `link_error` is called; header tasks after one that failed do run.
- `link` of a group is that of its first member; of a chain, of its last step; a chord's is its body's.
- Groups in groups are one group, and a group of one chain that ends in a group has that group's result.
- `Ignore` stops its chain: what comes after it is PENDING, and never runs. The same for the body of its chord.
- A task that is unknown here has failed with NotRegistered. Celery raises that out of `apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.eager import no_sleep
from aioretryq.workflows import eager

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.canvas.signature import Signature


async def apply(
    signature: Signature[Any, Any],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> eager.Result | None:
    """The result of the last thing in it, with its parents; None of an empty chain.

    The waits between retries are skipped unless `sleep=anyio.sleep` is given. With `throw=True` the first exception
    of a task is raised, and nothing runs after it. Other options are those of `apply_async`; raises what that raises
    for a workflow that cannot be.
    """
    given = dict(options)
    sleep, throw = given.pop("sleep", None) or no_sleep, given.pop("throw", None)
    app = signature.app
    throw = app.conf.task_eager_propagates if throw is None else throw
    called = signature.called(args, kwargs, given)
    return await eager.apply(app, called.node, called.args, called.kwargs, called.options, sleep=sleep, throw=throw)
