"""Remote control, as clients use it: ask running workers, of both kinds, and tell them what to do."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from uuid import uuid4

import anyio

from aioretryq.calling import ORIGIN
from aioretryq.errors import ConfigError, ProtocolError, did_you_mean
from aioretryq.protocol.commands import BY_NAME, check_arguments
from aioretryq.protocol.control import Address, Request, decode_reply, encode_request, form_for, reply_exchange
from aioretryq.protocol.nodes import matches
from aioretryq.revoking import ids_of, keep_group, keep_revoked, keep_stamps, stamps_of, store_revoked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.brokers.base import BusListener
    from aioretryq.protocol.control import Form

logger = logging.getLogger("aioretryq")

INBOX_TTL = 10.0
"""Seconds for which the place for replies outlives a client that dies."""


class Replies(dict[str, Any]):
    """What each node said, by its name; and who said nothing.

    `heard`: how many workers were listening, as the broker says. `silent`: how many that were meant have not answered
    in time; with a `pattern` nobody can tell, and it is 0. `missing`: the nodes out of `destination` among them.
    `kept`: it is a revocation that is written down for workers that start later, whoever answers.
    """

    heard: int = 0
    silent: int = 0
    missing: tuple[str, ...] = ()
    kept: bool = False


class Target(TypedDict, total=False):
    """Whom a request is for, and how long to wait.

    `destination`: names of nodes; `pattern`: a glob over them, or with `matcher="pcre"` a regular expression; without
    both everybody is meant. `timeout` (seconds, 1): for all replies together. `limit`: so many replies are enough.
    `reply=False` does not wait for any.
    """

    destination: Sequence[str] | str | None
    pattern: str | None
    matcher: str | None
    timeout: float
    limit: int | None
    reply: bool


class RemoteControl:
    """`queue.control`. Every method returns what each node said, by its name, and who was silent: see `Replies`.

    It returns as soon as all who heard the request have answered, at the latest after `timeout` seconds. On Redis the
    server says how many heard it, workers of Celery included.

    What no worker could understand is not sent: TypeError for arguments of a wrong form, ConfigError for values that
    cannot be (an empty id, a rate that is none).
    """

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    def inspect(self, **target: Unpack[Target]) -> Inspect:
        """Questions: `await queue.control.inspect().active()`."""
        return Inspect(self, _checked(target))

    async def broadcast(
        self, method: str, arguments: Mapping[str, Any] | None = None, **target: Unpack[Target]
    ) -> Replies:
        """Any command, by its name, with arguments that are not looked at.

        Raises ProtocolError for a pattern that cannot be used, BrokerUnavailable.
        """
        return await self._broadcast(method, dict(arguments or {}), target, durable=False)

    async def call(self, method: str, arguments: Mapping[str, Any], **target: Unpack[Target]) -> Replies:
        """As `broadcast`, with checked arguments. What revokes tasks is kept for workers that start later, too."""
        given = dict(arguments)
        if (command := BY_NAME.get(method)) is not None:
            check_arguments(command, given)
        if method in ("revoke", "terminate"):
            task_id = given.pop("task_id", ())
            return await self._revoke(method, task_id, given, target)
        if method == "revoke_by_stamped_headers":
            headers = given.pop("headers", {})
            return await self.revoke_by_stamped_headers(headers, **given, **target)
        return await self._broadcast(method, given, target, durable=False)

    # -- commands

    async def ping(self, **target: Unpack[Target]) -> Replies:
        """Who is there: `{node: {"ok": "pong"}}`."""
        return await self.broadcast("ping", **target)

    async def revoke(
        self,
        task_id: str | Sequence[str],
        *,
        terminate: bool = False,
        signal: str = "SIGTERM",
        group: str | None = None,
        **target: Unpack[Target],
    ) -> Replies:
        """These tasks are not to run; `terminate` also stops those that do.

        Workers that start within a day still honour it. Only when nodes are chosen (`destination`, `pattern`) it is
        not kept: then these alone hear it. `group`: these are members of that group, and no other member is to run
        either; workers remember the group, for they do not keep very many ids.
        """
        arguments = {"terminate": terminate, "signal": signal} | ({} if group is None else {"group": group})
        return await self._revoke("revoke", task_id, arguments, target)

    async def terminate(
        self, task_id: str | Sequence[str], signal: str = "SIGTERM", **target: Unpack[Target]
    ) -> Replies:
        """`revoke` with `terminate`."""
        return await self._revoke("terminate", task_id, {"signal": signal}, target)

    async def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any] | Sequence[str],
        *,
        terminate: bool = False,
        signal: str = "SIGTERM",
        **target: Unpack[Target],
    ) -> Replies:
        """Tasks with one of these stamps are not to run: `{"name": ["value", ...]}`. Kept as `revoke` is."""
        stamps = stamps_of(headers)
        if not stamps:
            raise ConfigError("Give the stamps of the tasks to revoke: there is none.")
        kept = not _chosen(_checked(target))
        if kept:
            await keep_stamps(self._queue, stamps, terminate=terminate)
        arguments = {"headers": stamps, "terminate": terminate, "signal": signal}
        return await self._broadcast("revoke_by_stamped_headers", arguments, target, durable=kept)

    async def rate_limit(self, task_name: str, rate_limit: str | float | None, **target: Unpack[Target]) -> Replies:
        """How often a task may start in each worker: `10/s`, `100/m`, `5/h`; 0 for no limit."""
        return await self.call("rate_limit", {"task_name": task_name, "rate_limit": rate_limit}, **target)

    async def time_limit(
        self, task_name: str, soft: float | None = None, hard: float | None = None, **target: Unpack[Target]
    ) -> Replies:
        """Time limits of all runs of a task that begin from now on."""
        return await self.call("time_limit", {"task_name": task_name, "soft": soft, "hard": hard}, **target)

    async def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        **target: Unpack[Target],
    ) -> Replies:
        """Take messages from that queue, too; until the worker ends."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
        }
        return await self.call("add_consumer", arguments, **target)

    async def cancel_consumer(self, queue: str, **target: Unpack[Target]) -> Replies:
        """Take nothing more from that queue."""
        return await self.call("cancel_consumer", {"queue": queue}, **target)

    async def enable_events(self, **target: Unpack[Target]) -> Replies:
        """Send events of tasks."""
        return await self.call("enable_events", {}, **target)

    async def disable_events(self, **target: Unpack[Target]) -> Replies:
        """Send no more events of tasks."""
        return await self.call("disable_events", {}, **target)

    async def heartbeat(self, **target: Unpack[Target]) -> Replies:
        """Send a heartbeat event at once."""
        return await self.call("heartbeat", {}, **target)

    async def pool_grow(self, n: int = 1, **target: Unpack[Target]) -> Replies:
        """Run so many more tasks at once."""
        return await self.call("pool_grow", {"n": n}, **target)

    async def pool_shrink(self, n: int = 1, **target: Unpack[Target]) -> Replies:
        """Run so many fewer tasks at once, at least one."""
        return await self.call("pool_shrink", {"n": n}, **target)

    async def autoscale(self, max: int, min: int | None = None, **target: Unpack[Target]) -> Replies:
        """Run at most `max` tasks at once."""
        return await self.call("autoscale", {"max": max, "min": min}, **target)

    async def pool_restart(self, **target: Unpack[Target]) -> Replies:
        """Of Celery's workers, where they allow it; ours say that they have none."""
        return await self.call("pool_restart", {}, **target)

    async def shutdown(self, **target: Unpack[Target]) -> Replies:
        """Stop them gracefully. Workers of Celery do not answer."""
        return await self.call("shutdown", {}, **target)

    # -- how

    async def _revoke(
        self, method: str, task_id: str | Sequence[str], arguments: dict[str, Any], target: Target
    ) -> Replies:
        ids = ids_of(task_id)
        if not ids or not all(ids):
            raise ConfigError(f"Give the ids of the tasks to revoke; {task_id!r:.100} has an empty one, or none.")
        kept = not _chosen(_checked(target))
        if kept:
            terminate = method == "terminate" or bool(arguments.get("terminate"))
            if (group := arguments.get("group")) is not None:
                await keep_group(self._queue, group, terminate=terminate)
            else:
                await keep_revoked(self._queue, ids, terminate=terminate)
            await store_revoked(self._queue, ids, terminate=terminate)
        return await self._broadcast(method, {**arguments, "task_id": ids}, target, durable=kept)

    async def _broadcast(self, method: str, arguments: dict[str, Any], target: Target, *, durable: bool) -> Replies:
        queue = self._queue
        namespace, form, bus = queue.conf.control_exchange, form_for(queue.conf), queue.broker.bus()
        oid = str(uuid4()) if target.get("reply", True) else None
        reply_to = None if oid is None else Address(reply_exchange(namespace), oid)
        request = self._request(method, arguments, _checked(target), reply_to, durable=durable)
        message = encode_request(request, namespace, form)
        if oid is None:
            found = Replies()
            found.heard = (await bus.publish([message]))[0]
            found.kept = durable
            return found
        timeout, destination = target.get("timeout", 1.0), request.destination
        replies = _Collected(queue, form, oid)
        async with bus.inbox(reply_exchange(namespace), oid, ttl=timeout + INBOX_TTL) as inbox:
            heard = (await bus.publish([message]))[0]
            wanted = heard if destination is None else min(heard, len(set(destination)))
            wanted = min(wanted, target.get("limit") or wanted)
            with anyio.move_on_after(timeout):
                await replies.collect(inbox, wanted)
        replies.found.heard, replies.found.kept = heard, durable
        replies.count_silent(request, wanted, target.get("limit"))
        return replies.found

    def _request(
        self, method: str, arguments: dict[str, Any], target: Target, reply_to: Address | None, *, durable: bool
    ) -> Request:
        named, pattern = target.get("destination"), target.get("pattern")
        if pattern:
            matches("", pattern, target.get("matcher"))  # a wrong one is an error here, not silence
        return Request(
            method=method,
            arguments=arguments,
            destination=((named,) if isinstance(named, str) else tuple(named)) if named else None,
            pattern=pattern,
            matcher=(target.get("matcher") or "glob") if pattern else None,
            ticket=None if reply_to is None else reply_to.routing_key,
            reply_to=reply_to,
            clock=self._queue.clock.forward(),
            expires=time.time() + target.get("timeout", 1.0),
            durable=durable,
            origin=ORIGIN,
        )


def _checked(target: Target) -> Target:
    """TypeError for what is no part of a target: ignored, it would have everybody addressed."""
    for name in target:
        if name not in Target.__annotations__:
            raise TypeError(f"Remote control has no argument {name!r}.{did_you_mean(name, Target.__annotations__)}")
    return target


def _chosen(target: Target) -> bool:
    return bool(target.get("destination") or target.get("pattern"))


class _Collected:
    """The replies to one request."""

    def __init__(self, queue: TaskQueue, form: Form, ticket: str) -> None:
        self.found = Replies()
        self._count = 0  # of replies: two nodes may go by one name
        self._queue = queue
        self._form = form
        self._ticket = ticket

    async def collect(self, inbox: BusListener, wanted: int) -> None:
        while self._count < wanted:
            for message in await inbox.receive():
                self._count += self._take(message.body)

    def count_silent(self, request: Request, wanted: int, limit: int | None) -> None:
        """Who has not answered, as far as that can be known."""
        found = self.found
        if limit is not None and self._count >= limit:
            return
        if request.destination is not None:
            found.missing = tuple(node for node in dict.fromkeys(request.destination) if node not in found)
            found.silent = len(found.missing)
        elif request.pattern is None:
            found.silent = max(0, wanted - self._count)

    def _take(self, body: bytes) -> bool:
        try:
            reply = decode_reply(body, self._form)
        except ProtocolError as error:
            logger.warning("Somebody has sent what is no reply: %s", error)
            return False
        self._queue.clock.adjust(reply.clock)
        if reply.ticket not in (None, self._ticket):
            return False
        self.found.update(reply.answers)
        return True


class Inspect:
    """Questions to workers; they change nothing there. See `RemoteControl.inspect`."""

    def __init__(self, control: RemoteControl, target: Target) -> None:
        self._control = control
        self._target = target

    async def _ask(self, method: str, **arguments: Any) -> Replies:
        return await self._control.broadcast(method, arguments, **self._target)

    async def ping(self) -> Replies:
        """Who is there."""
        return await self._ask("ping")

    async def active(self, *, safe: bool = False) -> Replies:
        """Tasks that run now; with `safe` their arguments are texts."""
        return await self._ask("active", safe=safe)

    async def reserved(self) -> Replies:
        """Tasks that were taken and have not begun."""
        return await self._ask("reserved")

    async def scheduled(self) -> Replies:
        """Tasks that wait for their time: at ours those that this worker has left with the broker."""
        return await self._ask("scheduled")

    async def revoked(self) -> Replies:
        """Ids of tasks that are not to run."""
        return await self._ask("revoked")

    async def registered(self, *options: str, builtins: bool = False) -> Replies:
        """Names of tasks, each with these options of it (`max_retries`, ...)."""
        return await self._ask("registered", taskinfoitems=list(options), builtins=builtins)

    async def active_queues(self) -> Replies:
        """Queues that messages are taken from."""
        return await self._ask("active_queues")

    async def stats(self) -> Replies:
        """Counters, pool, broker, resources."""
        return await self._ask("stats")

    async def conf(self, *, with_defaults: bool = False) -> Replies:
        """Settings; secrets are masked."""
        return await self._ask("conf", with_defaults=with_defaults)

    async def query_task(self, *ids: str) -> Replies:
        """`{node: {id: [state, info]}}` of those tasks that a node has."""
        return await self._ask("query_task", ids=list(ids))

    async def report(self) -> Replies:
        """Versions and settings, for bug reports."""
        return await self._ask("report")

    async def clock(self) -> Replies:
        """The logical clock."""
        return await self._ask("clock")

    async def hello(self, from_node: str, revoked: Sequence[str] | None = None) -> Replies:
        """Tell which tasks are revoked, and be told."""
        return await self._ask("hello", from_node=from_node, revoked=list(revoked or ()))

    async def memsample(self) -> Replies:
        """Memory in use now."""
        return await self._ask("memsample")

    async def memdump(self, samples: int = 10) -> Replies:
        """The samples so far."""
        return await self._ask("memdump", samples=samples)

    async def objgraph(self, type: str = "Request", num: int = 200, max_depth: int = 10) -> Replies:
        """A graph of objects, as a file where the worker is; workers of Celery only."""
        return await self._ask("objgraph", type=type, num=num, max_depth=max_depth)
