"""From a Celery configuration to settings of ours: what is taken, what has no effect, what must be refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq import backends, brokers
from aioretryq.celery_settings.names import canonical, nearest
from aioretryq.celery_settings.options import RESULT_OPTIONS, TRANSPORT_OPTIONS
from aioretryq.celery_settings.table import CELERY_SETTINGS, Row, Verdict
from aioretryq.celery_settings.urls import backend_url, broker_url
from aioretryq.config import HINTS, Settings, check
from aioretryq.drivers.redis import parse_url
from aioretryq.errors import ConfigError, did_you_mean
from aioretryq.routing import check_routes
from aioretryq.setting_sources import import_symbol, read_celery

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from aioretryq.setting_sources import Given


@dataclass
class Translation:
    """What a configuration of Celery comes to, leaving out what is to be ignored."""

    ignored: Container[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    without_effect: dict[str, str] = field(default_factory=dict)
    """What is not taken, and what is to be said of it besides."""
    unknown: dict[str, str] = field(default_factory=dict)
    """What is nothing of Celery's, and what may have been meant."""
    problems: list[str] = field(default_factory=list)

    def take(self, name: str, value: Any) -> None:
        """Set one of our settings, if the value fits."""
        try:
            self.settings[name] = check(name, value)
        except ConfigError as error:
            self.problems.append(str(error))

    def leave_out(self, row: Row) -> None:
        """Note a setting that is not taken."""
        if row.name in self.ignored:
            return
        if row.error:
            self.problems.append(f"{row.name} ({row.verdict}): {row.note}")
        else:
            self.without_effect[row.name] = row.aloud


def settings_from_celery(
    source: object,
    *,
    namespace: str = "CELERY",
    ignore: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """Settings of ours as `TaskQueue.from_celery` describes; warns once, or raises ConfigError with all reasons."""
    read = read_celery(source, namespace)
    values = dict(read.values)
    for name in ("broker_url", "broker_read_url", "broker_write_url", "result_backend"):  # as Celery does
        values[name] = environ.get(f"CELERY_{name.upper()}") or values.get(name)
    given = dict(overrides or {})
    for short, name in (("url", "broker_url"), ("backend", "result_backend")):
        if given.get(short) is not None:
            given[name] = given.pop(short)
        given.pop(short, None)
    ignored = _ignored(ignore, read, namespace)
    found = translate({name: value for name, value in values.items() if name not in ignored}, given, ignored)
    if found.problems:
        listed = "".join(f"\n- {_as_spelt(problem, read.spelt)}" for problem in found.problems)
        raise ConfigError(
            f"This Celery configuration cannot be taken as it is:{listed}\nChange it, give from_celery() your own "
            "value, or leave settings out with ignore=[names]."
        )
    for key in read.unknown:
        if key not in ignored:
            found.unknown[key] = _meant(key, namespace)
    if found.without_effect or found.unknown:
        warnings.warn(_warning(found, read.spelt), UserWarning, stacklevel=3)
    return {**found.settings, **given}


_KEY_OF_OPTIONS = re.compile(r"(broker|result_backend)_transport_options\[.+\]")


def _ignored(ignore: Iterable[str], read: Given, namespace: str) -> set[str]:
    """The names to leave out, as they are today."""
    if isinstance(ignore, str):
        raise ConfigError(f"ignore is a list of names: ignore=[{ignore!r}].")
    found = set()
    for key in ignore:
        name = canonical(key, namespace) if isinstance(key, str) else None
        if name is None and key not in read.unknown and not _KEY_OF_OPTIONS.fullmatch(str(key)):
            hint = _meant(str(key), namespace)
            raise ConfigError(f"ignore: {key!r} is no setting of Celery{hint and f' ({hint})'}.")
        found.add(name or key)
    return found


def _meant(key: str, namespace: str) -> str:
    name = key.removeprefix(f"{namespace}_").lower()
    if name in HINTS:
        return f"it is one of aioretryq: give {name}= to from_celery()"
    meant = nearest(key, namespace)
    return f"did you mean {meant}?" if meant else ""


def _warning(found: Translation, spelt: Mapping[str, str]) -> str:
    said = []
    if found.without_effect:
        listed = _listed({spelt.get(name, name): aloud for name, aloud in found.without_effect.items()})
        said.append(
            f"Celery settings without effect in aioretryq: {listed}. `aioretryq settings --celery` says why; "
            "ignore=[names] leaves them out."
        )
    if found.unknown:
        said.append(f"No settings of Celery: {_listed(found.unknown)}.")
    return " ".join(said)


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({more})" if more else name for name, more in sorted(names.items()))


def _as_spelt(problem: str, spelt: Mapping[str, str]) -> str:
    """With the names that were given; names in backticks are advice, and of today."""
    for name, key in spelt.items():
        problem = re.sub(rf"(?<![\w`/.=]){name}(?![\w`/=])", key, problem)
    return problem


def translate(values: Mapping[str, Any], given: Mapping[str, Any], ignored: Container[str] = ()) -> Translation:
    """`values` by Celery's names; `given` are settings of ours that are decided already."""
    found = Translation(ignored)
    for translation in _TRANSLATIONS:
        try:
            translation(values, given, found)
        except ConfigError as error:
            found.problems.append(str(error))
    for name, value in sorted(values.items()):
        row = CELERY_SETTINGS[name]
        if name in given or row.verdict is Verdict.TRANSLATED:
            continue
        if name in HINTS:
            if value is not None or name == "result_expires":
                found.take(name, value)
        elif not says_nothing(row, value):
            found.leave_out(row)
    return found


def verdict(row: Row, known: Container[str] = HINTS) -> Verdict:
    """The row's, unless it says that something does not exist here which by now does."""
    taken = (Verdict.SAME, Verdict.TRANSLATED, Verdict.BETTER)
    return Verdict.SAME if row.name in known and row.verdict not in taken else row.verdict


def says_nothing(row: Row, value: Any) -> bool:
    """Whether the value is what happens anyway."""
    if value is None or (isinstance(value, str | bytes | list | tuple | dict | set) and not value):
        return True
    return any(isinstance(value, type(known)) and value == known for known in (row.default, *row.fine))


# -- settings that are something else here


def _broker(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    if "broker_url" not in given:
        found.take("broker_url", _supported("broker_url", broker_url(values), brokers.BUILT_IN, "pass url=."))


def _backend(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    if "result_backend" not in given:
        hint = 'pass backend= (a Redis URL, or "disabled" to store no results).'
        found.take("result_backend", _supported("result_backend", backend_url(values), backends.BUILT_IN, hint))


def _supported(name: str, url: str, built_in: Mapping[str, Any], hint: str) -> str:
    """The URL, if something here can open it. No message shows it: it may hold a password anywhere."""
    scheme = url.partition("://")[0].lower()
    group = {"broker_url": brokers.ENTRY_POINTS, "result_backend": backends.ENTRY_POINTS}[name]
    if scheme in ("redis", "rediss", "redis+socket", "unix"):
        parse_url(url)
    elif scheme not in built_in and not entry_points(group=group, name=scheme.partition("+")[0]):
        shown = (f"{scheme}://" if "://" in url else repr(url)) if _SCHEME.fullmatch(scheme) else "a URL like this"
        meant = did_you_mean(scheme, built_in)
        raise ConfigError(f"{name}: {shown} is not supported yet.{meant} Set a Redis URL, or {hint}")
    return url


_SCHEME = re.compile(r"[a-z][a-z0-9+._-]*")


_MIME_TYPES = {
    "application/json": "json",
    "application/x-python-serialize": "pickle",
    "application/x-yaml": "yaml",
    "application/x-msgpack": "msgpack",
    "application/data": "auth",
}


def _accepted(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    for setting in ("accept_content", "result_accept_content"):
        value = values.get(setting)
        if setting in given or value is None:
            continue
        if isinstance(value, list | tuple | set | frozenset):
            value = tuple(_MIME_TYPES.get(kind, kind) if isinstance(kind, str) else kind for kind in value)
        found.take(setting, value)


def _key_password(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    value = values.get("security_key_password")
    if "security_key_password" in given or not value:
        return
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise ConfigError(f"security_key_password must be a text, not a {type(value).__name__}.")
    found.take("security_key_password", text)


def _concurrency(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    value = values.get("worker_concurrency")
    if "worker_concurrency" in given or value in (None, 0):
        return
    if value == "auto":
        found.leave_out(CELERY_SETTINGS["worker_concurrency"])
    else:
        found.take("worker_concurrency", value)


def _grace(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    value = values.get("worker_soft_shutdown_timeout")
    if "worker_grace" not in given and value:
        found.take("worker_grace", value)


def _socket_timeout(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    value = values.get("redis_socket_timeout")
    if "redis_socket_timeout" in given or value is None:
        return
    check("redis_socket_timeout", value)
    ours = Settings()
    ours.lease = given.get("lease", ours.lease)
    if float(value) < ours.answer_within:
        found.take("redis_socket_timeout", value)
    elif value != CELERY_SETTINGS["redis_socket_timeout"].default:
        found.leave_out(CELERY_SETTINGS["redis_socket_timeout"])


def _protocol(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    if values.get("task_protocol", 2) not in (None, 2):
        raise ConfigError("task_protocol: messages are written in protocol 2, which every Celery since 3.1.25 reads.")


def _routes(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    routes = values.get("task_routes")
    if "task_routes" in given or routes is None:
        return
    if isinstance(routes, list | tuple):
        routes = [_router(each) for each in routes]
    routes = _router(routes)
    check_routes(routes)
    found.take("task_routes", routes)


def _router(named: Any) -> Any:
    """The router, where it is named by its path; those with `route_for_task` are of Celery 3."""
    if not isinstance(named, str):
        return named
    try:
        router: Any = import_symbol(named)
    except ConfigError as error:
        raise ConfigError(f"task_routes: {error.__cause__ or error}. A text is the path of a router.") from error
    if not hasattr(router, "route_for_task"):
        return router
    old: Callable[..., Any] = (router() if isinstance(router, type) else router).route_for_task
    return lambda name, args, kwargs, options, task=None: old(name, args, kwargs)


def _broker_options(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    _options("broker_transport_options", TRANSPORT_OPTIONS, values, given, found)


def _result_options(values: Mapping[str, Any], given: Mapping[str, Any], found: Translation) -> None:
    _options("result_backend_transport_options", RESULT_OPTIONS, values, given, found)


def _options(
    setting: str,
    rows: Mapping[str, Row],
    values: Mapping[str, Any],
    given: Mapping[str, Any],
    found: Translation,
) -> None:
    options = values.get(setting)
    if setting in given or options is None:
        return
    if not isinstance(options, Mapping):
        raise ConfigError(f"Setting {setting!r} must be a dict, not a {type(options).__name__}.")
    taken = {}
    for key, value in options.items():
        row = rows.get(key)
        if row is None:
            if (shown := f"{setting}[{key!r}]") not in found.ignored:
                found.unknown[shown] = did_you_mean(str(key), rows).strip()
        elif row.verdict is Verdict.SAME:
            taken[key] = value
        elif not says_nothing(row, value):
            found.leave_out(replace(row, name=f"{setting}[{key!r}]"))
    found.take(setting, taken)


_TRANSLATIONS = (
    _broker,
    _backend,
    _broker_options,
    _result_options,
    _accepted,
    _key_password,
    _concurrency,
    _grace,
    _socket_timeout,
    _protocol,
    _routes,
)
