"""What the settings say of serializers and compressions. Raises ConfigError when a queue is opened, not when a task
fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioretryq.errors import ConfigError
from aioretryq.protocol import compression
from aioretryq.protocol.content import CONTENT_TYPES, content_type_of
from aioretryq.protocol.result import ResultFormat
from aioretryq.protocol.security import SETTINGS, security_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aioretryq.config import Settings

_NAMES = {mime: name for name, mime in CONTENT_TYPES.items()}


def check_message_formats(settings: Settings) -> None:
    """ConfigError for a serializer or compression of messages that is unknown, not installed, or lacks its keys."""
    used = {_serializer(settings.task_serializer), *_serializers(settings.accept_content)}
    if settings.task_compression is not None:
        compression.checked(settings.task_compression)
    if "auth" in used and security_for(settings) is None:
        raise ConfigError(f"The serializer auth signs and verifies: set {', '.join(SETTINGS)}.")


def result_format(settings: Settings) -> ResultFormat:
    """How the settings want results. ConfigError for a format that is unknown, not installed, or not accepted."""
    serializer, given = _serializer(settings.result_serializer), settings.result_accept_content
    accepted = _serializers(settings.accept_content if given is None else given)
    if serializer == "pickle" and "pickle" not in accepted:
        raise ConfigError(
            "result_serializer is pickle, which result_accept_content (or accept_content) does not have. Pickles can "
            "run any code: add it if you trust everyone who can write to the result backend."
        )
    if serializer == "auth" and security_for(settings) is None:
        raise ConfigError(f"The result_serializer auth signs and verifies: set {', '.join(SETTINGS)}.")
    if settings.result_compression is not None:
        compression.checked(settings.result_compression)
    return ResultFormat(
        serializer=serializer,
        compression=settings.result_compression,
        accept=tuple(sorted(accepted | {serializer})),
        security=security_for(settings),
        max_size=settings.max_payload_bytes,
    )


def _serializer(name: str) -> str:
    return _NAMES[content_type_of(name)]


def _serializers(names: Iterable[str]) -> set[str]:
    return {_serializer(name) for name in names}
