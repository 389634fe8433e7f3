"""The names of the channels that kombu publishes on: `<prefix><exchange>[/<routing key>]`."""

from __future__ import annotations

import re
from typing import Any

from aioretryq.errors import ConfigError

_SPECIAL = re.compile(r"[\\*?\[]")
_ANY_WORDS = re.compile(r"\.?#\.?")


class Channels:
    """`options` are kombu's: global_keyprefix, fanout_prefix and fanout_patterns."""

    def __init__(self, options: dict[str, Any], database: int) -> None:
        prefix = options.get("fanout_prefix", True)
        if not isinstance(prefix, str | bool):
            wanted = "True, False or a text such as '/{db}.'"
            raise ConfigError(f"broker_transport_options['fanout_prefix'] must be {wanted}, not {prefix!r}.")
        if not isinstance(prefix, str):
            prefix = "/{db}." if prefix else ""
        self._prefix = str(options.get("global_keyprefix", "")) + prefix.replace("{db}", str(database))
        self.patterns = bool(options.get("fanout_patterns", True))
        """Whether routing keys are part of the names; without, everybody hears everything of an exchange."""

    def channel(self, exchange: str, routing_key: str) -> str:
        suffix = f"/{routing_key}" if routing_key and self.patterns else ""
        return f"{self._prefix}{exchange}{suffix}"

    def routing_key(self, channel: str, exchange: str) -> str:
        return channel.removeprefix(self._prefix + exchange).removeprefix("/")

    def globs(self, exchange: str, pattern: str) -> list[str]:
        """What to subscribe to: it brings all that matches the pattern of a topic, and perhaps a little more."""
        bare = _escaped(self._prefix + exchange)
        if not pattern or not self.patterns:
            return [bare]
        # `a.#` is also for `a`, so the dot goes too. A glob's `*` is any text, while a topic's is one word.
        words = "*".join(_escaped(part, but="*") for part in _ANY_WORDS.split(pattern))
        keyed = f"{bare}/{words}"
        return [bare, keyed] if set(pattern) <= set("#.") else [keyed]


def is_pattern(glob: str) -> bool:
    """Whether a glob is more than the name of one channel."""
    return _SPECIAL.search(glob) is not None


def _escaped(text: str, but: str = "") -> str:
    return _SPECIAL.sub(lambda found: found[0] if found[0] in but else "\\" + found[0], text)
