"""Workers on every broker, each with a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from control_lab import Lab

from queues import memory_url, url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["url"]


@pytest.fixture
async def lab(url: str) -> AsyncIterator[Lab]:
    async with Lab(url).open() as lab:
        yield lab


@pytest.fixture
async def memory_lab() -> AsyncIterator[Lab]:
    """Where the broker does not matter."""
    async with Lab(memory_url()).open() as lab:
        yield lab
