"""What the documents import is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORTS = re.compile(
    r"^ *((?:from aioretryq[\w.]* import (?:\([^)]*\)|[^\n#]+))|(?:import aioretryq[\w.]*))",
    re.MULTILINE,
)
FOUND = sorted(
    {
        (path.relative_to(ROOT).as_posix(), " ".join(line.split()))
        for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
        for line in IMPORTS.findall(path.read_text())
    }
)


@pytest.mark.parametrize("document", sorted({document for document, _ in FOUND}))
def test_what_is_imported_is_there(document):
    lines = [line for each, line in FOUND if each == document]
    program = "\n".join(["import warnings", "warnings.simplefilter('error')", *lines])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_they_are_found():
    """Or the test above tests nothing."""
    assert ("docs/results.md", "from aioretryq import ResultSet") in FOUND
    assert len(FOUND) > 10
