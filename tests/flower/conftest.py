"""One fleet and one browser for all tests of Flower; each test has to leave Flower without a complaint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flower_browser
import flower_fleet
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flower_browser import Pages
    from flower_fleet import Fleet

EXPECTED = "there is no pool to restart"
"""The one complaint there may be, of a button that has no meaning here."""


@pytest.fixture(scope="session")
def shared_fleet() -> Iterator[Fleet]:
    with flower_fleet.fleet() as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    yield shared_fleet
    # A test asks for its task until Flower has heard of it: until then that is a 404, and a line in the log.
    expected = (EXPECTED, " 404 GET /api/task/info/")
    assert [line for line in shared_fleet.complaints() if not any(each in line for each in expected)] == []


@pytest.fixture(scope="session")
def browser(shared_fleet: Fleet) -> Iterator[Pages]:
    try:
        opened = flower_browser.browser(shared_fleet)
    except flower_browser.NoBrowser as missing:
        pytest.skip(str(missing))
    with opened as pages:
        yield pages


@pytest.fixture
def pages(browser: Pages, fleet: Fleet) -> Pages:
    return browser
