"""`aioretryq dead ...` as it is typed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from letters import entry, numbered, task_payload, unreadable, waiting

from aioretryq import TaskQueue
from aioretryq.cli import main
from aioretryq.cli.dead_text import duration, short_ids
from programs import running
from queues import PATIENCE
from redis_server import free_port

HERE = Path(__file__).parent


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an empty broker that is also the default."""
    found: str = f"sqlite:///{tmp_path}/q.sqlite3"
    if request.param == "redis":
        found = request.getfixturevalue("redis_url")
    monkeypatch.setenv("AIORETRYQ_URL", found)
    bury(found, [])
    return found


def bury(url: str, entries: list) -> None:
    async def inside() -> None:
        async with TaskQueue(url) as queue:
            await queue.broker.bury(entries)

    asyncio.run(inside())


def counts(url: str, name: str = "celery") -> tuple[int, int]:
    """(dead letters, messages that wait in the queue)."""

    async def inside() -> tuple[int, int]:
        async with TaskQueue(url) as queue:
            return await queue.dead_letters.count(), await waiting(queue, name)

    return asyncio.run(inside())


def dead(*arguments: str, answer: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["dead", *arguments], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def printed(*arguments: str, answer: str | None = None) -> str:
    result = dead(*arguments, answer=answer)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_prints_a_table_with_the_newest_last(url):
    entries = [
        entry(
            ago=7300, task="app.mail.send", queue="mail", reason="retries exhausted", attempts=4, error="a\n b\x1b[2J"
        ),
        entry(ago=45, task=None, task_id=None, reason="undecodable"),
        unreadable(),
    ]
    bury(url, entries)
    head, *lines = printed("list").splitlines()

    assert head.split() == ["ID", "AGE", "TASK", "QUEUE", "REASON", "ATTEMPTS", "ERROR"]
    assert [line.split()[0] for line in lines] == [each.id[:16] for each in entries]
    assert " ".join(lines[0].split()[1:]) == "2h app.mail.send mail retries exhausted 4 a b?[2J"
    assert " ".join(lines[1].split()[1:5]) in ("45s - celery undecodable", "46s - celery undecodable")
    assert "unreadable entry" in lines[2]


def test_list_says_how_many_it_leaves_out(url):
    bury(url, numbered(60))

    shown = printed("list").splitlines()
    assert len(shown) == 1 + 50 + 1
    assert "10 older not shown" in shown[-1]
    assert len(printed("list", "--limit", "0").splitlines()) == 61
    assert len(printed("list", "--older-than", "31s", "--newer-than", "1m").splitlines()) in (30, 31)


def test_list_as_json_lines(url):
    bury(url, numbered(3))
    result = dead("list", "--json", "--limit", "2")

    assert [json.loads(line)["task_id"] for line in result.stdout.splitlines()] == ["t1", "t2"]
    assert "payload" not in result.stdout
    assert "1 older" in result.stderr


def test_nothing_there_is_no_error(url):
    for command in ("list", "replay", "purge", "export"):
        assert "There are no dead letters in" in printed(command)
    assert "no dead letters that fit" in printed("list", "--task", "x")
    assert dead("list", "--json").stdout == ""


def test_show_prints_everything(url):
    earlier = [{"attempt": n, "time": 1.7e9 + n, "worker": "w1@host", "error": f"OSError({n})"} for n in (1, 2)]
    traceback = "Traceback\n  File x\nOSError: 3\x1b"
    one = entry(
        payload=task_payload(args=["a", 1]), attempts=3, errors=earlier, traceback=traceback, error="OSError(3)"
    )
    bury(url, [one])
    shown = printed("show", one.id[:16])

    for expected in (
        one.id,
        "('a', 1)",
        "OSError(1)",
        "2023-11-14 22:13:22 UTC",
        "OSError: 3?",
        "3 attempts, 1 deliveries, 0 interruptions",
        "celery, priority 0",
        "w1@host",
    ):
        assert expected in shown
    assert json.loads(printed("show", "--json", one.id))["args"] == "('a', 1)"


def test_show_by_the_id_of_the_task_as_the_log_has_it(url):
    task_id = "4f1c6d2e-8a57-4b6e-9d0a-1c2b3d4e5f60"
    one = entry(ago=5, task_id=task_id)
    bury(url, [one, entry(task_id="another")])
    assert one.id in printed("show", task_id)


def test_show_of_what_nobody_understands(url):
    one, two = entry(payload=b"\x00garbage", task=None, reason="undecodable"), unreadable()
    bury(url, [one, two])

    assert r"b'\x00garbage'" in printed("show", one.id)
    assert r"b'\xff nothing'" in printed("show", two.id)


def test_replay_asks_before_several(url):
    bury(url, numbered(3))

    refused = dead("replay", answer="n\n")
    assert refused.exit_code == 1
    assert "Send 3 messages of" in refused.output
    assert dead("replay", answer="").exit_code == 1
    assert counts(url) == (3, 0)
    assert "Sent 3 messages again." in printed("replay", answer="y\n")
    assert counts(url) == (0, 3)


def test_replay_of_some(url):
    entries = [*numbered(3), entry(task="app.other"), unreadable()]
    bury(url, entries)

    assert "Sent 1 message again." in printed("replay", entries[0].id[:16])
    assert "Sent 1 message again." in printed("replay", "--task", "app.oth*", "--to", "special")
    shown = printed("replay", "--yes", "--rate", "1000")
    assert "cannot be read: 1." in shown
    assert "Sent 2 messages again." in shown
    assert counts(url) == (1, 3)
    assert counts(url, "special") == (1, 1)
    assert dead("replay", entries[-1].id).exit_code == 1


def test_purge_asks_always(url):
    entries = numbered(3)
    bury(url, entries)

    assert dead("purge", entries[0].id, answer="n\n").exit_code == 1
    assert "Deleted 1 dead letter." in printed("purge", entries[0].id, answer="y\n")
    assert "Delete 2 dead letters of" in dead("purge", answer="n\n").output
    assert counts(url) == (2, 0)
    assert "Deleted 2 dead letters." in printed("purge", "-y")
    assert counts(url) == (0, 0)


def test_export_to_a_file_and_to_the_standard_output(url, tmp_path):
    bury(url, numbered(3))
    file = tmp_path / "dead.jsonl"

    assert "Exported 3" in printed("export", "-o", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["task_id"] for each in lines] == ["t0", "t1", "t2"]
    assert dead("export").stdout == file.read_text()
    assert counts(url) == (3, 0)
    assert "Cannot write" in dead("export", "-o", str(tmp_path / "no" / "folder")).output


def test_the_application_may_be_named(url):
    one = entry()
    bury(url, [one])
    os.environ.pop("AIORETRYQ_URL")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(HERE)
        for arguments in (["list"], ["show", one.id], ["export"]):
            command, *ids = arguments
            assert "app.add" in printed(command, "dead_applications:queue", *ids, "--url", url)
        assert "Sent 1" in printed("replay", "dead_applications:queue", "--url", url, one.id)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "--older-than", "2 hours"], "2h"),
        (["list", "--limit", "-1"], "--limit"),
        (["list", "nowhere:queue"], "There is no module"),
        (["list", "--url", "memory://"], "queue.dead_letters"),
        (["list", "--url", "sqlite:////no/such/file.sqlite3"], "There is no file '/no/such/file.sqlite3'"),
        (["list", "--url", ""], "give a URL"),
        (["show", "4f1c6d2e-8a57-4b6e-9d0a-1c2b3d4e5f60"], "none of a task with that id"),
        (["list", "--url", "amqp://host"], "not built yet"),
        (["show"], "aioretryq dead list"),
        (["show", "0a", "0b"], "aioretryq dead list"),
        (["show", "ffff"], "no dead letter whose id begins"),
        (["replay", "ffff"], "no dead letter whose id begins"),
        (["replay", "ffff", "--task", "x"], "not both"),
        (["replay", "--rate", "0"], "--rate"),
        (["purge", "ffff"], "no dead letter whose id begins"),
    ],
)
def test_mistakes_say_what_to_do(url, arguments, said):
    result = dead(*arguments)

    assert result.exit_code in (1, 2)
    assert said in " ".join(result.output.split())


def test_an_ambiguous_id_lists_the_candidates(url):
    entries = numbered(2)
    bury(url, entries)

    shown = dead("show", entries[0].id[:4]).output
    assert all(each.id in shown for each in entries)


def test_a_server_that_is_not_there():
    result = dead("list", "--url", f"redis://:secret@127.0.0.1:{free_port()}/0")

    assert result.exit_code == 1
    assert "Cannot reach Redis" in result.output
    assert "secret" not in result.output


def test_ctrl_c_leaves_the_rest_where_it_is(url):
    bury(url, numbered(5))
    with running(sys.executable, "-m", "aioretryq", "dead", "replay", "--yes", "--rate", "2") as program:

        async def some_are_sent() -> None:
            async with TaskQueue(url) as queue, asyncio.timeout(PATIENCE):
                while await waiting(queue) == 0:
                    await asyncio.sleep(0.01)

        asyncio.run(some_are_sent())
        program.signal(signal.SIGINT)
        assert program.wait() == 130

    left, sent = counts(url)
    assert left + sent == 5
    assert left
    assert f"Stopped. Sent {sent} message" in program.output
    assert "Traceback" not in program.output


def test_progress_is_shown_on_a_terminal_only(url):
    bury(url, numbered(3))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "aioretryq", "dead", "replay", "--yes"]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "Sent 3 messages again.\n"
    shown = os.read(ours, 100_000)
    os.close(ours)
    os.close(theirs)

    assert b"Sending" in shown
    assert b"100%" in shown


def test_texts():
    assert [duration(seconds) for seconds in (0, 59.9, 60, 7199, 86400 * 3)] == ["0s", "59s", "1m", "1h", "3d"]
    same = "0" * 16
    assert short_ids([f"{same}-aa", f"{same}-ab", "1" * 30]) == [f"{same}-aa", f"{same}-ab", "1" * 16]
