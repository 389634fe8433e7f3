"""When sweeps put back, decided without a broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioretryq.brokers.sweep import Sweeps, sweep

LEASE = 30.0
NOW = 1_700_000_000.0
TIMES = st.floats(NOW - 1000, NOW + 1000)


@pytest.mark.parametrize(
    ("before", "allowed", "quiet_until"),
    [
        (Sweeps(), False, NOW + LEASE),
        (Sweeps(NOW - LEASE, 0.0), False, NOW + LEASE),
        (Sweeps(NOW - LEASE / 2 - 0.001, NOW), False, NOW + LEASE),
        (Sweeps(NOW - LEASE / 2, 0.0), True, 0.0),
        (Sweeps(NOW, 0.0), True, 0.0),
        (Sweeps(NOW - 1, NOW), True, NOW),
        (Sweeps(NOW - 1, NOW + 0.001), False, NOW + 0.001),
        (Sweeps(NOW + 1, 0.0), False, NOW + LEASE),
        (Sweeps(NOW + 10**6, NOW + 10**6), False, NOW + LEASE),
    ],
    ids=["first", "late", "just late", "in time", "at once", "quiet is over", "quiet", "set back", "set far back"],
)
def test_sweep(before, allowed, quiet_until):
    assert sweep(before, NOW, LEASE) == (allowed, Sweeps(NOW, quiet_until))


@given(TIMES | st.none(), TIMES, st.lists(st.floats(0, LEASE / 2), min_size=3))
def test_regular_sweeps_are_allowed_after_one_lease_at_the_latest(last, quiet_until, pauses):
    now, (_, known) = NOW, sweep(Sweeps(last, min(quiet_until, NOW + LEASE)), NOW, LEASE)
    for pause in pauses:
        now += pause
        allowed, known = sweep(known, now, LEASE)
        assert allowed or now < NOW + LEASE


@given(st.lists(st.floats(-100, 100), min_size=1))
def test_nothing_is_put_back_within_a_lease_of_a_late_sweep(pauses):
    now, known, late = NOW, Sweeps(), NOW
    for pause in [0.0, *pauses]:
        now += pause
        if known.last is None or not 0 <= now - known.last <= LEASE / 2:
            late = now
        allowed, known = sweep(known, now, LEASE)
        assert allowed == (now >= late + LEASE)
