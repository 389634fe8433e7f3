import os
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioretryq.errors import EncodeError, ProtocolError
from aioretryq.protocol.moments import local_to_aware
from aioretryq.protocol.task import format_moment, parse_moment

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-31T12:00:00+00:00",
        "2030-01-31T12:00:00",
        "2030-01-31T12:00:00Z",
        "2030-01-31T14:00:00.000000+02:00",
        "2030-01-31 12:00",
    ],
)
def test_times_without_a_zone_are_utc(text):
    assert parse_moment(text) == NOON


def test_it_writes_what_celery_writes():
    assert format_moment(NOON) == "2030-01-31T12:00:00+00:00"
    assert format_moment(1795219421.377904) == "2026-11-21T00:03:41.377904+00:00"


@given(st.datetimes(timezones=st.just(UTC)))
def test_round_trip_to_the_microsecond(moment):
    assert abs(parse_moment(format_moment(moment.timestamp())) - moment.timestamp()) < 1e-4


@given(st.text())
def test_any_text_is_a_time_or_a_protocol_error(text):
    with suppress(ProtocolError):
        assert isinstance(parse_moment(text), float)


@pytest.mark.parametrize("value", [None, 5, [], b"2030-01-01"])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(ProtocolError, match="ISO 8601"):
        parse_moment(value)


@pytest.mark.parametrize("seconds", [1e20, float("nan"), float("inf"), -1e14])
def test_times_that_no_calendar_has(seconds):
    with pytest.raises(EncodeError, match="years 1 and 9999"):
        format_moment(seconds)


@pytest.fixture
def tokyo():
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC-9"  # POSIX counts westwards
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_local_times_get_the_zone_of_the_machine():
    assert local_to_aware("2030-01-31T21:00:00") == "2030-01-31T21:00:00+09:00"
    assert local_to_aware("2030-01-31T12:00:00+00:00") == "2030-01-31T12:00:00+00:00"
    with pytest.raises(ProtocolError):
        local_to_aware("soon")
