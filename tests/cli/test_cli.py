"""The command line as it is typed: what it prints, how it exits, and never a traceback for a mistake."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from aioretryq import TaskQueue
from aioretryq.cli.settings import as_markdown
from aioretryq.cli.worker import numbered
from aioretryq.worker.names import node_name
from programs import ROOT, Program, aioretryq_worker, running
from redis_server import RedisServer, free_port

HERE = Path(__file__).parent


def aioretryq(*arguments: str, answer: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aioretryq", *arguments],
        input=answer,
        env={**os.environ, **env},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def worker(*arguments: str) -> Iterator[Program]:
    """Started, not necessarily ready."""
    with running(sys.executable, "-m", "aioretryq", "worker", *arguments, cwd=HERE) as process:
        yield process


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["nowhere:queue"], {}, "There is no module 'nowhere'"),
        (["applications:nothing"], {}, "applications:nothing does not exist. It has: applications:queue."),
        (["applications:not_a_queue"], {}, "is a str, not a TaskQueue"),
        (["broken_application:queue"], {}, "a mistake of the application"),
        (["misconfigured_application:queue"], {}, "Did you mean 'task_acks_late'?"),
        (["applications:queue", "--url", "rediss//x"], {}, "is not a broker URL"),
        (["applications:queue", "--url", "amqp://localhost"], {}, "not built yet. Use redis://"),
        (["applications:queue", "--url", "redis://localhost:notaport/0"], {}, "port"),
        (["applications:queue", "--url", "sqlite:////no/such/folder/q.sqlite3"], {}, "/no/such/folder"),
        (["applications:queue"], {"AIORETRYQ_RESULT_BACKEND": "riak://x"}, "riak"),
        (["applications:queue"], {"AIORETRYQ_RESULT_BACKEND": "mongodb://x"}, "not built yet"),
        (["applications:queue"], {"AIORETRYQ_LEASES": "3"}, "Did you mean 'lease'?"),
        (["applications:queue"], {"AIORETRYQ_LEASE": "long"}, "Setting 'lease' takes a number"),
        (["applications:queue", "-c", "0"], {}, "-c"),
        (["celery_application:app"], {}, "For a worker of it use --celery celery_application:app"),
        (["celery_application"], {}, "use --celery celery_application:app"),
        (["applications:queue", "-n", "my web"], {}, "nobody could address it with ' '"),
        (["applications:queue", "-n", "w*", "--processes", "2"], {}, "nobody could address it with '*'"),
        (["applications:queue", "-n", "%x"], {}, "nobody could address it with '%'"),
        (["applications:queue", "-n", ""], {}, "lacks a half"),
        (["-A", "applications"], {}, "No such option: -A. The first argument"),
        (["applications:queue", "-P", "solo"], {}, "No such option: -P. Coroutines run on the event loop"),
        (["applications:queue", "-Ofair"], {}, "No such option: -O. A worker takes what it has room for"),
        (["applications:queue", "-B"], {}, "Run `celery beat`"),
        (["applications:queue", "-X", "a"], {}, "Name the queues to serve with `-Q`"),
        (["applications:queue", "--autoscale=8,2"], {}, "set it to the most you want"),
        (["applications:queue", "--time-limit", "3"], {}, "A setting here"),
        (["applications:queue", "--nonsense"], {}, "No such option"),
    ],
)
def test_mistakes_get_a_message_and_no_traceback(arguments: list[str], env: dict[str, str], said: str) -> None:
    done = aioretryq("worker", *arguments, **env)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())
    if "broken_application" not in arguments[0]:  # there the traceback is the user's own
        assert "Traceback" not in done.stderr + done.stdout


def test_unreachable_server_says_where_and_what_to_do() -> None:
    done = aioretryq(
        "worker",
        "applications:queue",
        "--url",
        f"redis://:secret@127.0.0.1:{free_port()}/0",
        AIORETRYQ_BROKER_CONNECTION_RETRY_ON_STARTUP="false",
    )
    assert done.returncode == 1
    assert "Cannot reach Redis" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_worker_waits_for_an_unreachable_server_until_it_is_stopped() -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    with worker("applications:queue", "--url", url) as process:
        process.wait_for("trying again until it is back: Cannot reach Redis")
        process.signal(signal.SIGTERM)
        assert process.wait(5) == 0, process.output
    assert "secret" not in process.output
    assert "is ready" not in process.output


def test_wrong_password_says_so(tmp_path: Path) -> None:
    server = RedisServer("--requirepass", "right")
    server.start()
    try:
        done = aioretryq("worker", "applications:queue", "--url", f"redis://:wrong@127.0.0.1:{server.port}/0")
    finally:
        server.close()
    assert done.returncode == 1
    assert "password" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_banner_and_stop(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'q.sqlite3'}"
    with aioretryq_worker(
        "applications:queue", "--url", url, "-Q", "a,b", "-c", "7", "-n", "w1@%h", cwd=HERE
    ) as worker:
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    shown = worker.output
    for expected in (url, "a, b", "7 coroutines", "w1@", "applications.fetch", "WARNING", "early acknowledgement"):
        assert expected in shown
    assert "has stopped" in shown


def test_a_piece_that_fails_ends_the_worker_with_the_reason(redis_url: str) -> None:
    with (
        redis.Redis.from_url(redis_url) as client,
        aioretryq_worker("applications:queue", "--url", redis_url, cwd=HERE) as worker,
    ):
        client.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"], commands=["-evalsha", "-eval"])
        try:
            client.client_kill_filter(_type="normal", skipme=True)
            assert worker.wait() == 1, worker.output
        finally:
            client.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"])
    assert "Traceback" not in worker.output, worker.output
    assert worker.lines[-1].startswith("Error: ")
    assert "permission" in worker.lines[-1]


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 3)])
async def test_purge_asks_first(tmp_path: Path, answer: str, left: int) -> None:
    url = f"sqlite:///{tmp_path / 'q.sqlite3'}"
    async with TaskQueue(url) as queue:
        for _ in range(3):
            await queue.send_task("applications.nothing", queue="a")
    process = subprocess.Popen(
        [sys.executable, "-m", "aioretryq", "worker", "applications:queue", "--url", url, "-Q", "a", "--purge"],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(answer)
        process.stdin.flush()
        shown = ""
        for line in process.stdout:
            shown += line
            if "is ready" in line:
                process.send_signal(signal.SIGTERM)
    assert "a: 3" in shown
    if left:
        assert process.returncode == 1
    async with TaskQueue(url) as queue:
        assert (await queue.broker.depth(["a"]))["a"] == left


def test_purge_needs_one_process() -> None:
    done = aioretryq("worker", "applications:queue", "--purge", "--processes", "2")
    assert done.returncode == 2
    assert "purge with one first" in done.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web-3"),
        ("web@%h", "web-3@%h"),
        ("%h", "%h-3"),
        ("a@b@c", "a-3@b@c"),
        ("w%i@%h", "w3@%h"),
        ("w%I", "w-3"),
    ],
)
def test_processes_get_numbered_names(name: str, expected: str) -> None:
    assert numbered(name, 3) == expected


@pytest.mark.parametrize("name", ["web", "web@%h", "web%I@%h", "web@%n.%d", "w%i@elsewhere"])
def test_names_have_celerys_abbreviations(name: str) -> None:
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    expected = {"web@%n.%d": f"web@{short}.{domain}", "w%i@elsewhere": "w0@elsewhere"}
    assert node_name(name) == expected.get(name, f"web@{host}")


def test_inspect_retries_prints_the_schedule() -> None:
    done = aioretryq("inspect-retries", "applications:queue", "applications.fetch")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[4:]]
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
        ("1", "0.00", "2.00", "1.00"),
        ("2", "0.00", "4.00", "2.00"),
        ("3", "0.00", "8.00", "4.00"),
        ("4", "0.00", "16.00", "8.00"),
        ("5", "0.00", "20.00", "10.00"),
    ]
    assert "ConnectionError" in done.stdout


def test_inspect_retries_of_endless_and_unknown_tasks() -> None:
    endless = aioretryq("inspect-retries", "applications:queue", "applications.for_ever", "--attempts", "2")
    assert "for ever" in endless.stdout
    assert endless.stdout.count("7.00") >= 4
    unknown = aioretryq("inspect-retries", "applications:queue", "applications.fetsch")
    assert unknown.returncode == 2
    assert "Did you mean 'applications.fetch'?" in unknown.stderr


def test_settings_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == as_markdown() + "\n", "run `make docs`"


def test_help_and_version() -> None:
    assert "inspect-retries" in aioretryq("--help").stdout
    assert "--grace" in aioretryq("worker", "--help").stdout
    assert aioretryq("--version").stdout.strip().endswith("0.1.0")
    assert "worker_concurrency" in aioretryq("settings").stdout
