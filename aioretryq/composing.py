"""What a queue offers for workflows: signatures, plans, and results of several tasks. A part of `TaskQueue`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aioretryq.lazy import Lazy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aioretryq import canvas
    from aioretryq.app import TaskQueue
    from aioretryq.canvas.signature import Signature
    from aioretryq.results import group, recorded, sets
    from aioretryq.results.group import GroupResult as Group
    from aioretryq.results.group import Groups
    from aioretryq.results.result import AsyncResult
    from aioretryq.results.sets import ResultSet as Set
    from aioretryq.workflows import sending
    from aioretryq.workflows.plan import Plan
else:
    canvas = Lazy("aioretryq.canvas")
    group = Lazy("aioretryq.results.group")
    recorded = Lazy("aioretryq.results.recorded")
    sets = Lazy("aioretryq.results.sets")
    sending = Lazy("aioretryq.workflows.sending")


class Composing:
    """Base of TaskQueue, and of nothing else."""

    @property
    def _queue(self) -> TaskQueue:
        return cast("TaskQueue", self)

    def signature(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> Signature[Any]:
        """A call of a task by its name, to be made later, or as a part of a workflow; it need not be defined here.

        `immutable`: it is not given the results of what is before it. Options are those of `send_task`; raises
        ConfigError for others.
        """
        return canvas.signature(name, args, kwargs, options, immutable=immutable, app=self._queue)

    def compile(
        self,
        signature: Signature[Any, Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Plan:
        """All that `signature.apply_async(args, kwargs, **options)` would send: for a look at it, or for `send`.

        Ids are chosen, nothing is sent; the queue has to be open. Raises what `apply_async` raises for a workflow
        that cannot be: ConfigError, and TypeError for wrong arguments and for something linked to a group. What is
        wrong with one of more than a hundred members is told by `send`, before anything is sent, or by `batches`.
        """
        called = signature.called(args, kwargs, options)
        return sending.plan_of(self._queue, called.node, called.args, called.kwargs, called.options)

    async def send(self, plan: Plan) -> AsyncResult[Any] | Group[Any] | None:
        """Send what a workflow was compiled to: its chords are opened, then its messages go, a thousand at a time.

        Returns the result of the last thing in it; None if there is nothing in it. A plan is sent once: its ids are
        those of its tasks. Up to a thousand messages (and 1 MB) are one step: all of them are sent, or none. Of more,
        the next ones are made while others travel, so that members out of a generator need no memory.

        Raises EncodeError for arguments that cannot be serialised, ConfigError for a chord without a result backend
        that counts, PublishError as `send_task`, BackendUnavailable, and what the generator raises. If something was
        sent by then it is PartlySent, with the results of that: those tasks run, while a chord with a part that was
        not sent fails, and all that waits for it. So does the chord if this process dies.
        """
        await sending.send_plan(self._queue, plan)
        return sending.result_of(self._queue, plan)

    async def workflow(self, result_id: str) -> AsyncResult[Any] | Group[Any]:
        """The result of a workflow that was sent, by its id, with all that is before it: from any process.

        What aioretryq has sent is known by what it has recorded (`result_save_workflows`) under the id of the whole
        result; then a group that was saved; then, of a step that has begun, who has sent it. Of what nobody knows it
        is `AsyncResult(result_id)`. Raises ConfigError where results are not kept.
        """
        return await recorded.workflow(self._queue, result_id)

    @property
    def GroupResult(self) -> Groups:
        """`queue.GroupResult(id, results)` makes one of several, and `await queue.GroupResult.restore(id)` finds the
        one that was saved."""
        return group.Groups(self._queue)

    def ResultSet(self, results: Iterable[AsyncResult[Any] | Group[Any]] = ()) -> Set[Any]:
        """Results as one that need have nothing to do with each other; more may be added."""
        return sets.ResultSet(results, self._queue)
