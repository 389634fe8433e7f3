"""`python -m benchmarks.growth` and what is drawn of it: real runs of aioretryq, none of peers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.growth import middle
from benchmarks.plots import PICTURES_OF, curves, short
from benchmarks.tuning import DEFAULT, table

ROOT = Path(__file__).parents[2]


def growth(*arguments):
    command = [sys.executable, "-m", "benchmarks.growth", "--repeat", "1", "--no-peers", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_series_are_written_and_others_stay(tmp_path):
    path = tmp_path / "growth.json"
    path.write_text('{"payload": {"medians": {}}}')
    done = growth("--only", "concurrent", "--only", "clients", "--largest", 10, "--json", path)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert found.keys() == {"payload", "concurrent", "clients"}
    assert found["concurrent"]["medians"]["aioretryq"]["10"]["rate"] > 0
    few, many = (found["clients"]["medians"]["aioretryq"][size]["connections"] for size in ("1", "10"))
    assert many == 10 * few


def test_a_run_of_ours_that_fails_fails_the_command(tmp_path):
    path = tmp_path / "growth.json"
    done = growth("--only", "queued", "--largest", 1_000_000, "--seconds", 1, "--json", path)
    assert done.returncode == 1
    assert "no figure: " in done.stderr  # of whichever size it is that takes longer than a second
    assert "aioretryq" in json.loads(path.read_text())["queued"]["failures"]


def test_the_middle_has_what_all_rounds_have():
    assert middle([{"rate": 1, "cpu": 5}, {"rate": 9}, {"rate": 2, "cpu": 1}]) == {"rate": 2}


def test_a_curve_has_the_medians_and_how_far_other_runs_are_off():
    runs = {"saq": {"10": [{"rate": 1.0}, {"rate": 2.0}, {"rate": 5.0}]}}
    found = {"queued": {"medians": {"saq": {"10": {"rate": 2.0}}}, "runs": runs}}
    [(name, figures, spread)] = curves(PICTURES_OF[1].panels[0], found)
    assert (name, figures, spread) == ("saq", {10: 2.0}, [[1.0], [3.0]])


@pytest.mark.parametrize(("size", "shown"), [(1, "1"), (0.5, "0.5"), (1_000, "1k"), (2_500_000, "2.5M")])
def test_sizes_are_short(size, shown):
    assert short(size) == shown


def test_pictures_are_drawn_of_what_was_measured(tmp_path):
    pytest.importorskip("matplotlib", reason="of the extra bench")
    report = {"rate": 5.0, "memory": 40.0}
    series = {
        "around": {"when": "now", "python": "3", "machine": "a", "load": [1], "redis": "Redis"},
        "medians": {"aioretryq": {"10": report, "100": report}},
        "runs": {"aioretryq": {"10": [report], "100": [report]}},
    }
    path = tmp_path / "growth.json"
    path.write_text(json.dumps({"concurrent": series}))
    command = [sys.executable, "-m", "benchmarks.plots", "--from", str(path), "--to", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [picture.name for picture in tmp_path.glob("*.png")] == ["performance-concurrency.png"]
    assert "queued: not measured" in done.stderr


def test_settings_are_compared_with_the_default_of_the_same_round():
    def rounds(*costs):
        return [{"worker_us": cost, "redis_us": 10.0, "commands": 4.0} for cost in costs]

    shown = table({DEFAULT.title: rounds(50.0, 100.0, 60.0), "other": rounds(100.0, 200.0, 90.0)})
    assert shown.splitlines()[-2:] == [
        f"| {DEFAULT.title} | 60 µs | 10 µs | 4.0 |",
        "| other | 2.00x | 1.00x | 4.0 |",
    ]
