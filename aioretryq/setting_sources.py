"""Where settings come from: objects, modules, import paths; and Celery's applications and their configuration."""

from __future__ import annotations

import importlib
import importlib.util
import types
from collections.abc import Container, Iterator, Mapping
from typing import Any

from msgspec import Struct

from aioretryq.celery_settings.names import canonical, looks_like_a_setting
from aioretryq.celery_settings.table import CELERY_SETTINGS
from aioretryq.errors import ConfigError

CELERY_ONLY = frozenset(CELERY_SETTINGS)
"""Celery's settings: `load` skips with a warning those that aioretryq does not have."""


def read_object(source: object, known: Container[str]) -> dict[str, Any]:
    """Settings of a mapping, an object's attributes, a module, or the import path of one."""
    if isinstance(source, str):
        source = import_path(source)
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, types.ModuleType):
        return {name: getattr(source, name) for name in dir(source) if not name.startswith("_")}
    public = {name: value for name, value in vars(source).items() if not name.startswith("_")}
    return {n: v for n, v in public.items() if n in known or n in CELERY_ONLY or _looks_like_setting(n, v)}


def _looks_like_setting(name: str, value: Any) -> bool:
    # A configuration module also holds its imports and helpers; a misspelt setting must still be noticed.
    groups = ("broker_", "result_", "task_", "worker_", "redis_", "beat_", "accept_")
    return name.startswith(groups) and not callable(value)


def import_path(path: str) -> object:
    """`package.module` or `package.module:attribute`."""
    module_name, _, attribute = path.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"Cannot load configuration from {path!r}: {error}") from error
    return found


def import_symbol(path: str) -> object:
    """`package.module`, `package.module:attribute`, or `package.module.attribute`."""
    try:
        return import_path(path)
    except ConfigError as error:
        module, _, attribute = path.rpartition(".")
        missing = error.__cause__
        if not module or not isinstance(missing, ModuleNotFoundError) or missing.name != path:
            raise
        try:
            return import_path(f"{module}:{attribute}")
        except ConfigError:
            raise error from missing  # that there is no such module says more


# -- what Celery was told


class Given(Struct, frozen=True):
    """What was set, by the names of today; `spelt` has the keys that were other names, and `unknown` those that look
    like settings but are none."""

    values: dict[str, Any]
    unknown: list[str]
    spelt: dict[str, str]


def read_celery(source: object, namespace: str = "CELERY") -> Given:
    """What a Celery application, the module or mapping that configures one, or the import path of either says.

    Of an application the configuration is loaded, as its first use would. It is looked for where `celery -A` does.
    """
    if isinstance(source, str):
        source = import_symbol(source)
    conf = _configuration_of(source)
    if conf is not None:
        return _read_application(conf)
    given = _public(source)
    wrong = [key for key in given if not isinstance(key, str)]
    if wrong:
        raise ConfigError(f"Names of settings are texts, not {wrong[0]!r}.")
    return _by_todays_names(given, namespace, source)


def _configuration_of(source: object) -> Any:
    """`app.conf` of a Celery application, or of the one in a module; Celery itself is not imported."""
    for candidate in _applications(source) if isinstance(source, types.ModuleType) else [source]:
        try:
            conf = getattr(candidate, "conf", None)
            if callable(getattr(conf, "value_set_for", None)):
                return conf
        except Exception as error:
            raise _unreadable(error) from error
    return None


def _applications(module: types.ModuleType) -> Iterator[object]:
    """What `celery -A` would take of the module, in its order: `app`, `celery`, the submodule celery, anything."""
    found = dict(vars(module))
    yield from (found[name] for name in ("app", "celery") if name in found)
    inside = f"{module.__name__}.celery"
    if hasattr(module, "__path__") and importlib.util.find_spec(inside) is not None:
        inner = import_path(inside)
        if isinstance(inner, types.ModuleType):
            yield from _applications(inner)
    yield from (value for value in found.values() if _is_celery(type(value)))


def _is_celery(kind: type) -> bool:
    # By the class: a stand-in such as celery.current_app would be asked for its application.
    return any((base.__module__, base.__name__) == ("celery.app.base", "Celery") for base in kind.__mro__)


def _read_application(conf: Any) -> Given:
    try:
        values = {name: getattr(conf, name) for name in CELERY_SETTINGS if conf.value_set_for(name)}
        keys = [str(key) for key in conf.table(with_defaults=False, censored=False)]
    except Exception as error:
        raise _unreadable(error) from error
    spelt = {name: key for key in keys if (name := canonical(key)) not in (None, key) and name not in keys}
    return Given(values, _unknown(keys, {}, "CELERY"), {name: key for name, key in spelt.items() if name is not None})


def _unreadable(error: Exception) -> ConfigError:
    # Loading the configuration of an application runs its code: anything may be raised.
    reason = " ".join(str(error).split())
    return ConfigError(f"This Celery configuration cannot be read: {type(error).__name__}: {reason}")


def _public(source: object) -> dict[Any, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    names = vars(source) if isinstance(source, types.ModuleType) else dir(source)
    try:
        found = {name: getattr(source, name, None) for name in names if not name.startswith("_")}
    except Exception as error:
        raise _unreadable(error) from error
    # `from django.utils import timezone` and the like are no settings.
    imported = ("include", "imports", "timezone")
    return {
        name: value
        for name, value in found.items()
        if not isinstance(value, types.ModuleType) and not (name in imported and callable(value))
    }


def _by_todays_names(given: Mapping[str, Any], namespace: str, source: object) -> Given:
    found = {key: name for key in given if (name := canonical(key, namespace)) is not None}
    unknown = _unknown(given, given, namespace)
    if not found and not unknown and not isinstance(source, Mapping):
        raise ConfigError(f"There is no Celery application and none of Celery's settings in {source!r}.")
    problems = []
    values: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for key, name in found.items():
        if name in values and values[name] is not given[key] and values[name] != given[key]:
            problems.append(f"{name} is set twice, by {spelt[name]} and {key}, to different values")
        values[name], spelt[name] = given[key], key
    old = {key: name for key, name in found.items() if key != name and name not in found}
    if old and any(key == name for key, name in found.items()):
        renames = ", ".join(f"{key} -> {name}" for key, name in sorted(old.items()))
        problems.append(f"old and new names are mixed, which Celery refuses as well; rename {renames}")
    if problems:
        raise ConfigError(f"This Celery configuration contradicts itself: {'; '.join(problems)}.")
    return Given(values, unknown, {name: key for name, key in spelt.items() if name != key and name not in found})


def _unknown(keys: Any, values: Mapping[str, Any], namespace: str) -> list[str]:
    return sorted(
        key
        for key in keys
        if canonical(key, namespace) is None
        and looks_like_a_setting(key, namespace)
        and not callable(values.get(key))
    )
