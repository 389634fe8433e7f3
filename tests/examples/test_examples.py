"""Every example as its README says to run it: real processes, an SQLite file, and HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from programs import ROOT, aioretryq_worker, running


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Environment of an example's processes: a queue of their own."""
    return {"AIORETRYQ_URL": f"sqlite:///{tmp_path}/queue.sqlite3"}


def run(*arguments: str, env: dict[str, str], timeout: float = 60) -> tuple[int, str]:
    """(exit code, output) of `python -m ...`."""
    with running(sys.executable, "-m", *arguments, env=env, cwd=ROOT) as program:
        return program.wait(timeout), program.output


@pytest.mark.parametrize(("arguments", "count"), [((), 1000), (("30",), 30)], ids=["default", "30"])
def test_quickstart_gets_all_results(env, arguments, count):
    with aioretryq_worker("examples.quickstart:queue", env=env, cwd=ROOT):
        code, output = run("examples.quickstart_client", *arguments, env=env)

    assert code == 0, output
    assert f"{count} results" in output
    assert f"{count} of them right" in output


def test_quickstart_in_one_folder_needs_no_settings(tmp_path):
    """Without AIORETRYQ_URL worker and client meet in the file of their working folder."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = {"AIORETRYQ_URL": ""}
    with (
        aioretryq_worker("examples.quickstart:queue", env=env, cwd=tmp_path),
        running(sys.executable, "-m", "examples.quickstart_client", "30", env=env, cwd=tmp_path) as client,
    ):
        assert client.wait() == 0, client.output

    assert (tmp_path / "aioretryq.sqlite3").exists()


def test_script_tells_of_progress_failure_and_cancellation(env):
    with aioretryq_worker("examples.script:queue", env=env, cwd=ROOT) as worker:
        code, output = run("examples.script", env=env)
        worker.wait_for("was not run to its end: terminated")

    assert code == 0, output
    lines = output.splitlines()
    assert lines[0] == "squares: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]"
    assert "import: PROGRESS {'done': 40, 'rows': 50}" in lines
    assert lines[-4:] == [
        "import: SUCCESS 50",
        "divide: ZeroDivisionError('division by zero')",
        "divide: FAILURE division by zero",
        "slow import: REVOKED",
    ]


def test_workflow_tells_of_its_progress_and_is_cancelled(env):
    with aioretryq_worker("examples.workflow:queue", env=env, cwd=ROOT) as worker:
        code, output = run("examples.workflow", env=env)
        worker.wait_for("was not run to its end: terminated")

    assert code == 0, output
    lines = output.splitlines()
    assert lines[0].startswith("workflow ")
    assert lines[1] == "0 of 14 calls"
    assert "14 of 14 calls" in lines
    assert "sent: today: 1100 lines in 12 files" in lines
    assert "flowchart TD" in lines
    assert any("examples.workflow.report<br/>SUCCESS" in line for line in lines)
    assert lines[-1] == "cancelled: REVOKED"


def test_example_tests_pass(env):
    code, output = run("pytest", "-q", "-p", "no:cacheprovider", "examples/test_example.py", env=env)

    assert code == 0, output
    assert "4 passed" in output


def test_readme_names_every_example():
    readme = (ROOT / "examples" / "README.md").read_text()

    assert [file.name for file in (ROOT / "examples").glob("[!_]*.py") if f"({file.name})" not in readme] == [
        "quickstart_client.py"
    ]
    assert "python -m examples.quickstart_client" in readme
