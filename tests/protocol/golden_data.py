"""The golden files as lists of test parameters."""

import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"


def load(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def task_entries(name):
    """(raw envelope document, decoded body) of every message in a file of task messages."""
    return [
        pytest.param(entry["raw"], entry["decoded_body"], id=f"{case}-{number}")
        for case, found in load(name).items()
        for number, entry in enumerate(
            entry for key in found["keys"].values() for entry in key.get("entries", ()) if key["db"] == "broker"
        )
    ]


def result_documents():
    """Every stored document of a task (the one of a group is something else)."""
    return [
        pytest.param(found["value"], id=name)
        for name, found in load("results").items()
        if "value" in found and "status" in found["value"]
    ]
