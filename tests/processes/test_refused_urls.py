"""Brokers that a worker, or several, cannot be given on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from programs import running

HERE = Path(__file__).parent
WORKER = (sys.executable, "-m", "aioretryq", "worker")


@pytest.mark.parametrize(
    ("arguments", "env", "started"),
    [
        (["counting:queue", "--url", "memory://"], {}, 0),
        (["counting:queue"], {"AIORETRYQ_URL": "memory://"}, 1),
        (["applications:queue"], {}, 1),  # names it itself
    ],
)
def test_memory_is_of_one_process(arguments: list[str], env: dict[str, str], started: int, tmp_path: Path) -> None:
    folder = HERE.parent / "cli" if arguments == ["applications:queue"] else HERE
    given = {"COUNTING_TRACE": str(tmp_path / "trace"), **env}
    with running(*WORKER, *arguments, "--processes", "2", cwd=folder, env=given) as program:
        assert program.wait() == 2, program.output
    assert "sqlite:///path/to/file or redis://host, or run one process" in " ".join(program.output.split())
    assert program.output.count("started, pid") == started


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_empty_url_is_an_error(processes: str) -> None:
    with running(*WORKER, "counting:queue", "--url", "", "--processes", processes, cwd=HERE) as program:
        assert program.wait() == 2, program.output
    assert "Invalid value for --url: it is empty; leave it out" in " ".join(program.output.split())
    assert "started, pid" not in program.output
