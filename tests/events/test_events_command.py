"""`aioretryq events` as it is typed."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from aioretryq.cli import COMMANDS, main
from aioretryq.cli.event_table import WORKERS, screen
from aioretryq.cli.event_text import Lines, as_json
from aioretryq.events import Event, State
from programs import aioretryq_worker, environment, running

HERE = Path(__file__).parent
AIORETRYQ = [sys.executable, "-m", "aioretryq"]


def event(kind, **fields):
    return Event(type=kind, hostname="w@h", timestamp=1.5, pid=7, clock=3, fields=fields, received=2.5)


def test_lines_are_those_of_celery():
    """The format of its Dumper; the text is compared with its own in the interop tests."""
    lines = Lines()
    received = lines.line(event("task-received", uuid="i", name="add", args="(1, 2)", kwargs="{}", retries=0))
    assert received == (
        "w@h [1970-01-01 00:00:01.500000+00:00] task received: add(i) args=(1, 2) kwargs={} "
        "clock=3, local_received=2.5, pid=7, retries=0, utcoffset=0.0"
    )
    assert "] task succeeded: add(i) args=(1, 2) kwargs={} clock=3" in lines.line(event("task-succeeded", uuid="i"))
    assert "] task started: other clock=3" in lines.line(event("task-started", uuid="other"))
    assert "] heartbeat: clock=3, freq=2.0" in lines.line(event("worker-heartbeat", freq=2.0))


def test_nobody_rules_the_terminal():
    hostile = event("task-received", uuid="i\x1b[2J", name="\x07x", args="\n\u202e", kwargs=["\x00"])
    assert Lines().line(hostile).isprintable()
    assert "\n" not in as_json(hostile)
    assert "\x1b" not in as_json(hostile)
    state = State()
    state.hear(hostile)
    state.hear(Event(type="worker-online", hostname="[red]\x1b[31m", timestamp=1.0, received=1.0))
    shown = picture(state)
    assert "\x1b" not in shown
    assert "[red]" in shown


def picture(state, width=160, height=30):
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(screen(state, now=10.0, where="memory://", height=height))
    return capture.get()


def test_the_table_fits_the_screen():
    state = State()
    for number in range(100):
        beat = Event(type="worker-heartbeat", hostname=f"w{number:02}@h", timestamp=9.0, received=9.0)
        state.hear(beat)
        state.hear(Event(type="task-started", hostname="w00@h", timestamp=9.0, fields={"uuid": f"t{number:02}"}))
    shown = picture(state)
    assert len(shown.splitlines()) <= 30
    assert f"and {100 - WORKERS} more" in shown
    assert "100 of 100 workers alive, 100 tasks, 200 events" in shown
    assert "t99" in shown  # the newest first
    assert "t00" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "memory://x"], "memory:// exists in one process only"),
        (["watched_application:in_memory"], "memory:// exists in one process only"),
        (["--dump", "-j", "--url", "redis://localhost"], "--dump or --json, not both"),
        (["-A", "one:queue", "two:queue"], "given twice: --app one:queue and two:queue"),
        (["-A", "nowhere:queue"], "There is no module 'nowhere'"),
        (["nowhere:queue"], "There is no module 'nowhere'"),
        (["--url", "redis://127.0.0.1:1/0", "--dump"], "127.0.0.1:1"),
    ],
)
def test_mistakes_are_explained(arguments, said, monkeypatch):
    monkeypatch.chdir(HERE)
    done = CliRunner().invoke(main, ["events", *arguments])
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit)
    assert said in done.output.replace("\n", " ")


@pytest.mark.parametrize(("url", "code"), [("nosuch://x", 2), ("redis://127.0.0.1:1/0", 69)])
def test_exit_codes(url, code):
    assert CliRunner().invoke(main, ["events", "--url", url, "--dump"]).exit_code == code


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("task-*", ""),
        ("worker-o*", ""),
        ("task-progress", ""),
        ("task-suceeded", "Did you mean 'task-succeeded'?"),
        ("nosuch", "There are task-sent, task-received"),
    ],
)
def test_types_that_nobody_sends_are_doubted(pattern, said):
    done = CliRunner().invoke(main, ["events", "--url", "nosuch://x", "--types", f"task-sent,{pattern}"])
    assert ("Warning: no event of the type" in done.output) == bool(said)
    assert said in done.output


@pytest.fixture(scope="module")
def place(redis_server, tmp_path_factory):
    """(URL, environment) of a running worker that tells of its tasks."""
    url = f"sqlite:///{tmp_path_factory.mktemp('events')}/queue.sqlite3"
    env = {"AIORETRYQ_URL": url}
    with aioretryq_worker("watched_application:queue", "-E", "-n", "w1@here", env=env, cwd=HERE):
        yield url, env


def send(env):
    code = "import asyncio, watched_application as a; print(asyncio.run(a.send()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE,
        env={**environment(), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1]


def test_json_lines(place):
    url, env = place
    with running(*AIORETRYQ, "events", "--url", url, "--json", cwd=HERE) as watching:
        watching.wait_for("Listening to events")
        task_id = send(env)
        watching.wait_for("task-succeeded")
        watching.wait_for("task-sent")
        watching.signal(signal.SIGINT)
        assert watching.wait() == 0
    found = [json.loads(line) for line in watching.lines if line.startswith("{")]
    kinds = [each["type"] for each in found if each.get("uuid") == task_id]
    # The client's way to the broker is another one than the worker's.
    assert sorted(kinds) == ["task-received", "task-sent", "task-started", "task-succeeded"]
    assert {each["hostname"] for each in found if each["type"] != "task-sent"} == {"w1@here"}


def test_dump_of_some_types_and_of_an_application(place):
    _, env = place
    with running(
        *AIORETRYQ,
        "events",
        "watched_application:queue",
        "--dump",
        "--types",
        "task-started,task-succ*",
        env=env,
        cwd=HERE,
    ) as watching:
        watching.wait_for("Listening to events")
        task_id = send(env)
        watching.wait_for("task succeeded")
    lines = [line for line in watching.lines if task_id in line]
    assert [re.search(r"\] ([a-z ]+):", line)[1] for line in lines] == ["task started", "task succeeded"]


def test_a_reader_that_goes_away_is_no_error(place):
    url, env = place
    command = f"{sys.executable} -m aioretryq events --url {url} --json | head -n 1"
    with running("sh", "-c", command, cwd=HERE) as watching:
        watching.wait_for("Listening to events")
        send(env)
        send(env)
        assert watching.wait() == 0
    assert "Traceback" not in watching.output
    assert "Error" not in watching.output


def test_live_table(place):
    url, env = place
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*AIORETRYQ, "events", "--url", url],
        cwd=HERE,
        env={**environment(), "TERM": "xterm", "COLUMNS": "200", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = read_until(ours, b"workers alive")
        task_id = send(env)
        shown = read_until(ours, task_id.encode()[:8])
        shown += read_until(ours, b"SUCCESS")
        assert b"w1@here" in shown
        assert b"watched.add(1, 2)" in shown
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def read_until(descriptor, text):
    shown = b""
    while text not in shown:
        piece = os.read(descriptor, 65536)
        assert piece, shown
        shown += piece
    return shown


def test_commands_are_imported_when_they_are_used():
    code = "import sys, aioretryq.cli; print([n for n in sys.modules if n.startswith(('rich', 'aioretryq.cli.'))])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_list_of_commands_says_what_each_is():
    for name, (_, text) in COMMANDS.items():
        assert main.commands[name].get_short_help_str(200).startswith(text.rstrip("."))
