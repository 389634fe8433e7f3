"""YAML, msgpack and pickle, each as kombu writes it. JSON has a module of its own, `jsontypes`."""

from __future__ import annotations

import pickle
from typing import Any

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol.packages import package
from aioretryq.protocol.saferepr import saferepr

_PICKLE_PROTOCOL = 4  # Celery's peers may run an older Python than ours
LARGEST_YAML = 5_000_000
"""Values in a YAML document once its aliases are written out: a few lines may stand for billions."""


def pickle_dumps(value: Any) -> bytes:
    try:
        return pickle.dumps(value, _PICKLE_PROTOCOL)
    except Exception as error:  # __reduce__ is the user's own code
        raise EncodeError(
            f"{saferepr(value, 200)} cannot be pickled: {type(error).__name__}: {error}. Pass plain data instead."
        ) from error


def pickle_loads(data: bytes) -> Any:
    """Runs whatever the pickle says. Ask `accept_content` first."""
    try:
        return pickle.loads(data)
    except Exception as error:  # a pickle runs code, which raises what it likes
        raise ProtocolError(f"Not a pickle that can be read here: {type(error).__name__}: {error}") from error


def yaml_dumps(value: Any) -> bytes:
    yaml = package("yaml")
    try:
        text: str = yaml.safe_dump(value)
        return text.encode()
    except Exception as error:  # whatever a container of the user's own raises while it is read
        raise EncodeError(
            f"{saferepr(value, 200)} cannot be written as YAML: {_first_line(error)}. "
            "Pass plain data: dicts, lists, texts, numbers, dates; of a signature its to_dict()."
        ) from error


def yaml_loads(data: bytes) -> Any:
    """Plain data only, as `yaml.safe_load` does, which never makes an object of a class.

    In pure Python: libyaml's recursion on deep nesting ends the process.
    """
    yaml = package("yaml")
    try:
        loader = yaml.SafeLoader(data)
        try:
            node = loader.get_single_node()
            _check_size(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except ProtocolError:
        raise
    except Exception as error:  # constructors of scalars raise what int(), date() and others do
        raise ProtocolError(
            f"Not YAML that can be read: {_first_line(error)}. It begins with {data[:80]!r}."
        ) from error


def _check_size(root: Any) -> None:
    """Refuse what is enormous, or endless, once its aliases are followed."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        known = sizes.get(id(node))
        if known is not None:
            if not known:
                raise ProtocolError("A YAML document that contains itself is no message.")
            return known
        sizes[id(node)] = 0  # under way
        content = getattr(node, "value", None)
        total = 1
        for item in content if isinstance(content, list) else ():
            total += sum(map(size, item)) if isinstance(item, tuple) else size(item)
        if total > LARGEST_YAML:
            raise ProtocolError(
                f"A YAML document of more than {LARGEST_YAML:,} values, with its aliases written out."
            )
        sizes[id(node)] = total
        return total

    size(root)


def msgpack_dumps(value: Any) -> bytes:
    msgpack = package("msgpack")
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
        return packed
    except Exception as error:  # whatever a container of the user's own raises while it is read
        raise EncodeError(
            f"{saferepr(value, 200)} cannot be written as msgpack: {type(error).__name__}: {error}. "
            "Pass plain data: dicts with text keys, lists, texts, bytes, numbers below 2**64; of a signature its "
            "to_dict()."
        ) from error


def msgpack_loads(data: bytes) -> Any:
    msgpack = package("msgpack")
    try:
        # What kombu refuses, keys that are neither text nor bytes, it can write: read it.
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except Exception as error:  # the unpacker's own errors, or what a dict says of its keys
        raise ProtocolError(
            f"Not msgpack that can be read: {type(error).__name__}: {error}. It begins with {data[:80]!r}."
        ) from error


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
