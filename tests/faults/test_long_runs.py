"""For `make soak`: random faults for ten minutes, and the sizes that take long."""

from __future__ import annotations

import os
import random
import sys
from dataclasses import replace

import pytest

from faults.arena import Scale
from faults.soak import soak, summary
from faults.test_faults import check, everywhere

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(10**6))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 1800)]

FULL = Scale(patience=600)


@pytest.mark.parametrize("place", ["redis", "sqlite"])
async def test_random_faults(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """SOAK_SECONDS=600 SOAK_SEED=... say for how long, and which."""
    report, going = await soak(place, SECONDS / 2, SEED)
    told = summary(place, SEED, report)
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
    assert not report.problems(), "\n".join([told, *going.story])


async def test_killed_with_the_default_lease() -> None:
    """100 tasks in flight are done by another worker 32 s later at most."""
    check(await everywhere("sigkill", replace(FULL, lease=30, tasks=100)))


async def test_bad_messages_by_the_ten_thousand() -> None:
    check(await everywhere("garbage", replace(FULL, garbage=10_000, tasks=10_000)))


async def test_two_hundred_thousand_messages_wait() -> None:
    check(await everywhere("full-queue", replace(FULL, queued=200_000)))


async def test_a_hundred_thousand_messages_are_parked() -> None:
    check(await everywhere("parked", replace(FULL, parked=100_000)))
