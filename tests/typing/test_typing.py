"""What a type checker tells users: mypy --strict over a user's module."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MODULE = Path(__file__).parent / "user_module.py"


def test_wrong_calls_are_flagged_and_right_ones_are_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", str(tmp_path), str(MODULE)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    found = {
        (int(line), code)
        for line, code in re.findall(r"user_module\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    }
    expected = set()
    for number, line in enumerate(MODULE.read_text().splitlines(), 1):
        _, marked, codes = line.partition("# E: ")
        if marked and "`" not in line:
            expected |= {(number, code.strip()) for code in codes.split(",")}
    assert found == expected, done.stdout + done.stderr
