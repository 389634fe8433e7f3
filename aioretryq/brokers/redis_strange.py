"""What others have left in our keys and is no text: it is ignored, and told once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

logger = logging.getLogger("aioretryq.broker.redis")


def read_texts(members: Iterable[bytes]) -> tuple[list[str], list[bytes]]:
    """Those that are UTF-8, and those that are not."""
    texts, strange = [], []
    for member in members:
        try:
            texts.append(member.decode())
        except UnicodeDecodeError:
            strange.append(member)
    return texts, strange


class Strange:
    """Tells of each key once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def complain(self, key: str, members: Sequence[bytes]) -> None:
        if members and key not in self._told:
            self._told.add(key)
            shown = min(members)
            logger.warning("%d members of %s are no text and ignored, such as %.200r", len(members), key, shown)
