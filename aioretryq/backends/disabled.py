"""`result_backend="disabled"`: results are dropped, and asking for one is an error that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from aioretryq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from aioretryq.backends.base import ResultListener
    from aioretryq.config import Settings
    from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart, OverdueChord, StoredResult


class DisabledBackend:
    """Takes results and keeps none."""

    display_url = "disabled"

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> Self:
        return cls()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        return None

    async def store(self, results: Sequence[StoredResult]) -> list[bool]:
        return [True] * len(results)

    async def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        return _refuse()

    async def forget(self, task_ids: Sequence[str]) -> None:
        _refuse()

    async def save_group(self, group_id: str, document: bytes, ttl: float | None) -> None:
        return None

    async def restore_group(self, group_id: str) -> bytes | None:
        return _refuse()

    async def delete_group(self, group_id: str) -> None:
        _refuse()

    async def open_chords(self, openings: Sequence[ChordOpening]) -> None:
        if openings:
            _refuse()

    async def amend_chords(self, openings: Sequence[ChordOpening]) -> list[bool]:
        await self.open_chords(openings)
        return []

    async def add_parts(self, additions: Sequence[ChordAddition]) -> None:
        if additions:
            _refuse()

    async def overdue_chords(self, patience: float, limit: int) -> list[OverdueChord]:
        return []

    async def count_parts(self, parts: Sequence[ChordPart]) -> list[bool]:
        return [False] * len(parts)

    async def chord_parts(self, group_id: str, limit: int | None = None) -> list[bytes]:
        return _refuse()

    async def hold_chords(self, claims: Sequence[ChordClaim], hold: float) -> list[bool | None]:
        return [False] * len(claims)

    async def close_chords(self, claims: Sequence[ChordClaim]) -> None:
        return None

    async def cleanup(self) -> int:
        return 0

    def listen(self) -> AbstractAsyncContextManager[ResultListener]:
        return _refuse()


def _refuse() -> NoReturn:
    raise ConfigError(
        "No result backend: results are not stored, so there is none to read or to wait for. "
        'Set result_backend="sqlite:///results.sqlite3" or "redis://host:6379/0", on the workers and the clients.'
    )
