"""docs/faults.md names the test behind each promise: those tests are there."""

from __future__ import annotations

import re
from pathlib import Path

from faults.catalogue import CASES

TESTS = Path(__file__).parent.parent
TEXT = (TESTS.parent / "docs" / "faults.md").read_text()


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)", TEXT)
    assert len(named) > 50
    missing = [f"{path}::{test}" for path, test in named if f"def {test}(" not in read(path)]
    assert not missing


def read(path: str) -> str:
    file = TESTS / path
    return file.read_text() if file.exists() else ""


def test_every_fault_that_is_named_exists_and_every_fault_is_named() -> None:
    assert set(re.findall(r"`\[([\w-]+)\]`", TEXT)) - {"name"} == set(CASES)
