"""Settings: one table of names, types, defaults and docs; checked the moment one is set.

Names are Celery's wherever Celery has the setting. The table serves validation, the command line's help
and docs/settings.md (`aioretryq settings --markdown`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from aioretryq.errors import ConfigError, UnknownSettingError, did_you_mean
from aioretryq.lazy import Lazy
from aioretryq.queues import read_queues
from aioretryq.setting_values import fit, in_words, members_of, read

if TYPE_CHECKING:
    from aioretryq import setting_sources
else:
    setting_sources = Lazy("aioretryq.setting_sources")  # Celery's settings, too: only `load` and mistakes need them

ENV_PREFIX = "AIORETRYQ_"
DEFAULT_URL = "sqlite:///aioretryq.sqlite3"

Routes = Mapping[str, Any] | list[Any] | tuple[Any, ...] | Callable[..., Any]


def setting(default: Any, doc: str, *, at_least: float | None = None, at_most: float | None = None) -> Any:
    metadata = {"doc": doc, "at_least": at_least, "at_most": at_most}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(eq=False, repr=False)  # URLs hold passwords; and making both takes 2 ms
class Settings:
    """The configuration of a queue: `queue.conf`. Setting an unknown name or a wrong type raises ConfigError."""

    # -- where things are
    broker_url: str | None = setting(
        None,
        f"Broker. Default: `{ENV_PREFIX}URL`, else `{DEFAULT_URL}` in the current folder.",
    )
    result_backend: str | None = setting(
        None, "Result backend, as a URL or alias. Default: the broker's URL. `disabled` stores nothing."
    )
    broker_connection_timeout: float = setting(4.0, "Seconds to wait for a connection to the broker.", at_least=0.01)
    broker_transport_options: dict[str, Any] = setting(
        {},
        "`queue_order_strategy`: round_robin, sorted or priority (as given). Redis: `global_keyprefix`, "
        "`visibility_timeout` (for Celery workers on the same queues), `fanout_prefix`, `fanout_patterns`.",
    )
    result_backend_transport_options: dict[str, Any] = setting({}, "Redis: `global_keyprefix`, `retry_policy`.")
    broker_connection_retry_on_startup: bool = setting(
        True, "A worker waits for a broker that cannot be reached yet; otherwise it ends with exit code 1."
    )
    redis_socket_timeout: float | None = setting(
        None,
        "Seconds until a Redis server that does not answer counts as gone. Default: a third of `lease`, 0.5 to 4.",
        at_least=0.01,
    )
    redis_max_connections: int = setting(
        2, "Command connections to Redis, for the broker and the backend each.", at_least=1
    )

    # -- results
    result_expires: float | None = setting(
        86400.0, "Seconds a result is kept; None or 0 keeps it for ever.", at_least=0
    )
    result_failure_expires: float | None = setting(
        None, "Seconds the result of a failed task is kept; None as long as all, 0 for ever.", at_least=0
    )
    result_serializer: str = setting("json", "Serializer of results: json, yaml, msgpack, auth (signed) or pickle.")
    result_accept_content: tuple[str, ...] | None = setting(
        None, "Serializers accepted in results, besides `result_serializer`. Default: those of `accept_content`."
    )
    result_compression: str | None = setting(
        None, "Compression of results: gzip, bzip2, lzma, brotli or zstd. Celery reads it from 5.7 on."
    )
    result_chord_join_timeout: float = setting(
        3.0, "Half the seconds for which a worker has the right to send a chord's body; at least 2.5.", at_least=0
    )
    result_chord_expires: float | None = setting(
        None, "Seconds a chord that is not complete is remembered; None as long as results, 0 for ever.", at_least=0
    )
    result_chord_retry_interval: float = setting(
        1.0,
        "Seconds between two looks of `celery.chord_unlock`, which Celery sends for backends without counters.",
        at_least=0,
    )
    result_extended: bool = setting(False, "Store name, args, kwargs, worker, retries and queue with a result.")
    result_cache_max: int = setting(-1, "SUCCESS results kept in the client's memory; -1 keeps none, 0 all.")
    result_backend_always_retry: bool = setting(False, "Retry storing and reading results on recoverable errors.")
    result_backend_max_retries: float = setting(
        float("inf"), "How often, before BackendStoreError/GetMetaError.", at_least=0
    )
    result_backend_base_sleep_between_retries_ms: int = setting(
        10, "First delay of that, in milliseconds.", at_least=0
    )
    result_backend_max_sleep_between_retries_ms: int = setting(
        10000, "Longest delay of that, in milliseconds.", at_least=0
    )
    result_backend_thread_safe: bool = setting(
        False, "Accepted for Celery's sake: backends here are always safe to share."
    )
    result_save_workflows: bool = setting(
        True, "Keep names and ids of the steps of workflows that are sent, for `aioretryq workflow`."
    )
    result_poll_interval: float = setting(
        5.0, "Seconds after which a waiter looks for itself, should an announcement have been lost.", at_least=0.01
    )

    # -- messages
    accept_content: tuple[str, ...] = setting(
        ("json",), "Serializers accepted in messages: json, yaml, msgpack, auth, pickle. Pickle can run any code."
    )
    task_serializer: str = setting("json", "Serializer of messages: json, yaml, msgpack, auth (signed) or pickle.")
    task_compression: str | None = setting(None, "Compression of messages: gzip, bzip2, lzma, brotli or zstd.")
    security_key: str | None = setting(None, "Private RSA key that signs, for the serializer auth: a PEM file.")
    security_key_password: str | None = setting(None, "Password of that file.")
    security_certificate: str | None = setting(None, "X.509 certificate of that key: a PEM file.")
    security_cert_store: str | None = setting(
        None, "Certificates of all who are trusted: a folder of PEM files, or a glob."
    )
    security_digest: str = setting("sha256", "Hash of signatures; the same everywhere.")
    max_payload_bytes: int = setting(
        64 * 2**20, "Largest message or result. Put larger data into a store and pass its key.", at_least=1
    )
    task_default_queue: str = setting("celery", "Queue of tasks that have no other.")
    task_queues: Any = setting(
        (), "Queues with exchanges: names, `Queue(...)` and `Broadcast(name)`. A worker without -Q takes them all."
    )
    task_create_missing_queues: bool = setting(
        True, "Queues that `task_queues` does not name may be used all the same; otherwise that is an error."
    )
    task_default_exchange: str | None = setting(None, "Exchange of queues that have none. Default: the queue's name.")
    task_default_exchange_type: Literal["direct", "topic"] = setting("direct", "And its type.")
    task_default_routing_key: str | None = setting(
        None, "Routing key of queues and messages that have none. Default: `task_default_queue`."
    )
    task_default_priority: int = setting(0, "Priority of messages: 0 (served first) to 9.", at_least=0, at_most=9)
    task_routes: Any = setting(None, "Queue and priority by task name: dict with globs, callable, or list of both.")
    task_publish_retry: bool = setting(True, "Retry sending a task when the broker cannot be reached.")
    task_publish_retry_policy: dict[str, Any] = setting(
        {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
        "How: max_retries, interval_start, interval_step, interval_max (seconds).",
    )
    task_publish_timeout: float = setting(
        30.0, "Seconds after which sending a task gives up, retries included.", at_least=0
    )
    task_publish_wait: float = setting(
        0.0,
        "Seconds for which sending a task waits for a broker that is gone, once `task_publish_retry_policy` is used "
        "up; 0 raises PublishError then.",
        at_least=0,
    )

    # -- tasks
    task_acks_late: bool = setting(True, "Acknowledge after the task ran (late), not before it starts.")
    task_track_started: bool = setting(False, "Store STARTED when a task starts.")
    task_ignore_result: bool = setting(False, "Store no results.")
    task_store_errors_even_if_ignored: bool = setting(False, "Store failures of tasks that ignore their result.")
    task_inherit_parent_priority: bool = setting(
        False, "What follows from a task (callbacks, the next step of a chain) gets its priority."
    )
    task_allow_error_cb_on_chord_header: bool = setting(
        False, "Errbacks of a chord are told of the tasks of its header, too; of its body they are in any case."
    )
    task_time_limit: float | None = setting(
        None, "Seconds after which a coroutine task is cancelled and fails.", at_least=0
    )
    task_soft_time_limit: float | None = setting(
        None, "Seconds after which SoftTimeLimitExceeded is raised inside a coroutine task.", at_least=0
    )
    task_default_rate_limit: str | float | None = setting(
        None, "How often a task may start in each worker: `10/s`, `100/m`, `5/h`, or a number per second."
    )
    task_max_deliveries: int = setting(
        3, "How often a message is given to a worker that dies with it, before it is dead-lettered.", at_least=1
    )
    task_dead_letter: bool | tuple[str, ...] = setting(
        False, "Keep failed tasks (retries used up) as dead letters: true, or a list of queues."
    )
    task_always_eager: bool = setting(False, "`delay` and `apply_async` run the task in place: for tests.")
    task_eager_propagates: bool = setting(False, "Eager tasks raise their exceptions at once.")

    # -- events
    worker_send_task_events: bool = setting(False, "Workers send events of their tasks, as `-E` has them do.")
    task_send_sent_event: bool = setting(False, "Whoever sends a task sends an event of that too.")
    worker_heartbeat_interval: float = setting(
        2.0, "Seconds between two heartbeats, which a worker sends as events; 0 sends none.", at_least=0
    )
    event_exchange: str = setting("celeryev", "Exchange that events are sent to.")
    event_serializer: Literal["json", "msgpack", "yaml"] = setting(
        "json", "Serializer of events that is read besides json. They are sent as json, which everybody reads."
    )
    event_buffer_bytes: int = setting(
        8 * 2**20, "Bytes of events that wait for the broker. The oldest are dropped when there are more.", at_least=0
    )

    # -- workers
    worker_concurrency: int = setting(100, "Tasks running at once in a worker.", at_least=1)
    worker_threads: int = setting(
        min(32, (os.cpu_count() or 1) + 4), "Plain (not async) functions running at once in a worker.", at_least=1
    )
    worker_grace: float = setting(
        25.0, "Seconds running tasks get to finish after TERM or INT; below Kubernetes' 30.", at_least=0
    )
    worker_disable_rate_limits: bool = setting(False, "Tasks start as often as they come, whatever their rate limit.")
    worker_enable_remote_control: bool = setting(
        True, "A worker answers `inspect` and `control`, and does what it is told."
    )
    control_exchange: str = setting("celery", "Names the channel of remote control; the same for all who use it.")
    lease: float = setting(30.0, "Seconds after which a silent worker's messages go to others.", at_least=0.1)
    unknown_task_delay: float = setting(
        5.0, "Seconds until a task that is unknown here is offered again; doubles up to a minute.", at_least=0
    )
    unknown_task_timeout: float = setting(
        3600.0, "Seconds after which a task that no worker knows is dead-lettered.", at_least=0
    )
    worker_blocked_limit: float = setting(
        120.0, "Seconds a task may block the event loop until its worker's leases are left to run out.", at_least=0
    )
    worker_deduplicate_successful_tasks: bool = setting(
        True, "Do not run a redelivered message again whose result is stored already."
    )
    dead_letter_max: int = setting(100_000, "Dead letters kept; the oldest go first.", at_least=0)
    dead_letter_expires: float = setting(90 * 86400.0, "Seconds dead letters are kept.", at_least=0)

    changes = 0
    """How often something was set: who has looked settings up can tell whether they still hold."""

    def __setattr__(self, name: str, value: Any) -> None:
        self._set(name, check(name, value))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        object.__setattr__(self, "changes", self.changes + 1)

    def update(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set several; nothing is set when one of them is wrong."""
        checked = {name: check(name, value) for name, value in {**(values or {}), **more}.items()}
        for name, value in checked.items():
            self._set(name, value)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Defaults, overridden by `AIORETRYQ_<SETTING>`; `AIORETRYQ_URL` is the broker's URL."""
        self = cls()
        for variable, text in environ.items():
            name = variable.removeprefix(ENV_PREFIX).lower()
            if variable == f"{ENV_PREFIX}URL":
                self.broker_url = text or None
            elif variable.startswith(ENV_PREFIX) and (name in HINTS or did_you_mean(name, HINTS)):
                self.update({name: parse(name, text)})
        return self

    def load(self, source: object) -> None:
        """Take settings from a mapping, an object's lower-case attributes, or the import path of either.

        Names of Celery settings that have no meaning here are skipped with a warning.
        """
        values = setting_sources.read_object(source, HINTS)
        foreign = sorted(name for name in values if name not in HINTS and name in setting_sources.CELERY_ONLY)
        if foreign:
            warnings.warn(
                f"Celery settings without effect in aioretryq: {', '.join(foreign)}", UserWarning, stacklevel=2
            )
        self.update({name: value for name, value in values.items() if name not in foreign})

    @property
    def answer_within(self) -> float:
        """Seconds a server has to answer a command: well below the lease, or its end would come unnoticed."""
        derived = min(4.0, max(0.5, self.lease / 3))
        return derived if self.redis_socket_timeout is None else self.redis_socket_timeout

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in HINTS}


HINTS: dict[str, Any] = typing.get_type_hints(Settings)
"""Name -> type of every setting."""


def table() -> list[tuple[str, str, Any, str]]:
    """(name, type, default, doc) of every setting, in order."""
    defaults = Settings()
    return [(f.name, str(f.type), getattr(defaults, f.name), f.metadata["doc"]) for f in dataclasses.fields(Settings)]


def check(name: str, value: Any) -> Any:
    """The value as it is stored (an int where a float is wanted becomes one), or ConfigError."""
    if name not in HINTS:
        if name in setting_sources.CELERY_ONLY:
            raise UnknownSettingError(f"{name!r} is a setting of Celery that aioretryq does not have; remove it.")
        raise UnknownSettingError(
            f"There is no setting {name!r}.{did_you_mean(name, HINTS)} `aioretryq settings` lists them all."
        )
    field = Settings.__dataclass_fields__[name]
    try:
        fitted = _READERS.get(name, _as_it_is)(fit(HINTS[name], value))
    except TypeError:
        wanted = str(field.type)
        raise ConfigError(f"Setting {name!r} must be {wanted}, not {value!r} ({type(value).__name__}).") from None
    if name in _URLS and fitted == "":
        raise ConfigError(f"Setting {name!r} is an empty text; give a URL, or None for the default.")
    least = field.metadata["at_least"]
    if least is not None and fitted is not None and not fitted >= least:  # nan, too
        raise ConfigError(f"Setting {name!r} must be at least {least}, not {value!r}.")
    most = field.metadata["at_most"]
    if most is not None and fitted is not None and fitted > most:
        raise ConfigError(f"Setting {name!r} must be at most {most}, not {value!r}.")
    return fitted


_URLS = ("broker_url", "result_backend")
_READERS: dict[str, Callable[[Any], Any]] = {"task_queues": read_queues}


def _as_it_is(value: Any) -> Any:
    return value


def parse(name: str, text: str) -> Any:
    """A setting's value from the text of an environment variable."""
    if name not in HINTS:
        check(name, text)
    hint = HINTS[name]
    members = members_of(hint)
    for member in members:
        with contextlib.suppress(ValueError):
            return read(member, text)
    raise ConfigError(f"Setting {name!r} takes {' or '.join(map(in_words, members))}, not {text!r}.")
