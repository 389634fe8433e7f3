"""`python -m benchmarks`: real runs of aioretryq, none of peers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.environments import Environments, NotInstalled

ROOT = Path(__file__).parents[2]


def bench(*arguments):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_a_run_prints_its_table_and_writes_its_results(tmp_path):
    path = tmp_path / "results.json"
    done = bench("drain", "--only", "aioretryq", "--tasks", 60, "--repeat", 1, "--json", path)
    assert done.returncode == 0, done.stderr
    assert "Drain 60 no-ops" in done.stdout
    [found] = json.loads(path.read_text())
    [report] = found["outcomes"]["aioretryq"]["reports"]
    assert report["rate"] > 0
    assert found["table"][0]["ours"] == report["rate"]
    assert "Drain 60 no-ops" in path.with_suffix(".md").read_text()


def test_a_run_of_ours_that_fails_fails_the_command():
    done = bench("drain", "--only", "aioretryq", "--tasks", 300_000, "--repeat", 1, "--seconds", 1)
    assert done.returncode == 1
    assert "drain: aioretryq has no figure: seed was not done after 1 s" in done.stderr


def test_a_peer_that_cannot_be_installed_is_listed_and_fails_the_command_unless_allowed(tmp_path):
    blocked = tmp_path / "a file"
    blocked.touch()
    asked = ("drain", "--only", "huey", "--tasks", 1, "--repeat", 1, "--environments", blocked)
    done = bench(*asked)
    assert done.returncode == 1
    assert "huey: not installed" in done.stdout
    assert bench(*asked, "--allow-missing").returncode == 0


def test_an_unknown_contender():
    done = bench("drain", "--only", "huuey")
    assert done.returncode == 2
    assert "There is no contender 'huuey'; there are aioretryq, " in done.stderr


def test_what_could_not_be_installed_is_not_tried_again(tmp_path):
    blocked = tmp_path / "a file"
    blocked.touch()
    environments = Environments(blocked)
    with pytest.raises(NotInstalled) as first:
        environments.bin(CONTENDERS["huey"])
    blocked.unlink()
    with pytest.raises(NotInstalled, match="not installed") as second:
        environments.bin(CONTENDERS["huey-sqlite"])
    assert str(second.value) == str(first.value)


def test_ours_runs_where_the_harness_does(tmp_path):
    assert Environments(tmp_path).bin(CONTENDERS["aioretryq"]) == Path(sys.executable).parent
