"""Schedules: which delay comes when."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import IntervalPolicy, RetryPolicy
from aioretryq.retry import PUBLISH_POLICY, RECONNECT_POLICY, RESULT_POLICY

SEED = 7


def delays(policy, count):
    return [policy.next_delay(retry, random.Random(SEED)) for retry in range(count)]


def test_backoff_doubles_and_is_capped():
    policy = RetryPolicy(backoff=2, backoff_max=20, jitter=False)
    assert delays(policy, 6) == [2, 4, 8, 16, 20, 20]


def test_backoff_true_begins_with_a_second():
    assert delays(RetryPolicy(backoff=True, jitter=False), 4) == [1, 2, 4, 8]


def test_backoff_may_be_a_fraction():
    assert delays(RetryPolicy(backoff=0.5, jitter=False), 3) == [0.5, 1, 2]


def test_without_backoff_the_delay_is_always_the_same():
    assert delays(RetryPolicy(delay=7), 3) == [7, 7, 7]


def test_defaults_are_those_of_celery():
    policy = RetryPolicy()
    assert (policy.max_retries, policy.delay, policy.backoff, policy.backoff_max, policy.jitter) == (
        3, 180, False, 600, True,
    )  # fmt: skip


@given(
    retries=st.integers(0, 10_000),
    backoff=st.one_of(st.just(True), st.floats(0.001, 1e6)),
    cap=st.floats(0, 1e9),
    seed=st.integers(),
)
def test_full_jitter_stays_between_zero_and_the_ceiling(retries, backoff, cap, seed):
    policy = RetryPolicy(backoff=backoff, backoff_max=cap, jitter=True)
    delay = policy.next_delay(retries, random.Random(seed))
    assert 0 <= delay <= policy.ceiling(retries) <= cap


@given(retries=st.integers(0, 1100), backoff=st.floats(0.001, 1e6), cap=st.floats(0.001, 1e9))
def test_the_ceiling_never_falls(retries, backoff, cap):
    policy = RetryPolicy(backoff=backoff, backoff_max=cap)
    assert policy.ceiling(retries) <= policy.ceiling(retries + 1)


def test_jitter_spreads_over_the_whole_range():
    policy = RetryPolicy(backoff=100, backoff_max=100)
    source = random.Random(SEED)
    drawn = [policy.next_delay(0, source) for _ in range(1000)]
    assert min(drawn) < 5
    assert max(drawn) > 95
    assert 45 < sum(drawn) / len(drawn) < 55


@pytest.mark.parametrize("retries", [1023, 1024, 10**6, 10**100])
def test_any_number_of_retries_is_fine(retries):
    policy = RetryPolicy(max_retries=None, backoff=2, backoff_max=600, jitter=False)
    assert policy.next_delay(retries) == 600
    assert IntervalPolicy(max_retries=None).next_delay(min(retries, 10**6)) == 1


def test_preview_shows_bounds_and_mean_of_each_retry():
    rows = RetryPolicy(max_retries=3, backoff=2, backoff_max=600, jitter=True).preview()
    assert [(row.attempt, row.minimum, row.maximum, row.expected) for row in rows] == [
        (1, 0, 2, 1),
        (2, 0, 4, 2),
        (3, 0, 8, 4),
    ]


def test_preview_without_jitter_is_exact():
    rows = RetryPolicy(max_retries=2, backoff=2, jitter=False).preview()
    assert [(row.minimum, row.maximum, row.expected) for row in rows] == [(2, 2, 2), (4, 4, 4)]
    assert [row.expected for row in RetryPolicy(max_retries=2, delay=5).preview()] == [5, 5]


def test_preview_of_endless_retries_has_ten_rows_or_as_many_as_wanted():
    endless = RetryPolicy(max_retries=None, backoff=1)
    assert len(endless.preview()) == 10
    assert len(endless.preview(3)) == 3
    assert RetryPolicy(max_retries=0).preview() == []


def test_intervals_grow_by_a_step_up_to_the_longest():
    policy = IntervalPolicy(max_retries=5, interval_start=3, interval_step=1, interval_max=6)
    assert delays(policy, 6) == [3, 4, 5, 6, 6, 6]


def test_the_documented_defaults_of_publishing_results_and_reconnecting():
    assert (PUBLISH_POLICY.max_retries, delays(PUBLISH_POLICY, 7)) == (
        3,
        pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1]),
    )
    assert (RESULT_POLICY.max_retries, delays(RESULT_POLICY, 4)) == (20, [0, 1, 1, 1])
    assert RECONNECT_POLICY.max_retries is None
