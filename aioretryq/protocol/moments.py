"""Points in time on the wire: ISO 8601 text there, unix seconds here."""

from __future__ import annotations

import functools
import math
from datetime import UTC, datetime

from aioretryq.errors import EncodeError, ProtocolError


def parse_moment(text: str) -> float:
    """Unix seconds of an ISO 8601 text; one without a zone means UTC, as Celery reads it."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(
            f"{str(text)[:64]!r} is not a time; send eta and expires as ISO 8601, like '2030-01-31T12:00:00+00:00'."
        ) from error


def format_moment(unix: float) -> str:
    """Unix seconds as Celery writes them: ISO 8601 in UTC, with the zone."""
    try:
        whole = math.floor(unix)
        second, fraction = _second(whole), round((unix - whole) * 1_000_000)
        if 0 < fraction < 1_000_000:
            return f"{second}.{fraction:06}+00:00"
        return datetime.fromtimestamp(unix, UTC).isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise EncodeError(
            f"{unix!r} seconds since 1970 is not a time that can be sent; use one between the years 1 and 9999."
        ) from error


@functools.lru_cache(maxsize=8)
def _second(unix: int) -> str:
    """Most are asked for again and again: now."""
    return datetime.fromtimestamp(unix, UTC).replace(tzinfo=None).isoformat()


def local_to_aware(text: str) -> str:
    """`text` with the zone of this machine if it has none: what `utc: false` of protocol 1 means."""
    try:
        moment = datetime.fromisoformat(text)
        return text if moment.tzinfo is not None else moment.astimezone().isoformat()
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise ProtocolError(f"{str(text)[:64]!r} is not a time in ISO 8601.") from error
