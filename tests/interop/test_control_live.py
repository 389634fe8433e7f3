"""Remote control between real Celery and us, in both directions and with both kinds of worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis as redis_client
from click.testing import CliRunner

from aioretryq import TaskQueue, TaskRevokedError
from aioretryq.cli import main
from programs import Program, environment, running
from queues import soon

HERE = Path(__file__).parent
OURS, THEIRS = "ours@lab", "theirs@lab"
PONG = {"ok": "pong"}


class CeleryUser:
    """One program with Celery's client and command line, for many steps: starting it takes seconds."""

    def __init__(self, url):
        self._process = subprocess.Popen(
            [sys.executable, "control_celery.py"],
            env={**environment(), "INTEROP_REDIS": url},
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *step):
        self._process.stdin.write(json.dumps(step) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def url(redis_server):
    with redis_client.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="module")
def programs(url):
    """Both kinds of worker, and somebody who uses Celery."""
    env = {"INTEROP_REDIS": url}
    ours = [sys.executable, "-m", "aioretryq", "worker", "control_ours:queue", "-n", OURS]
    theirs = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "control_celery",
        "worker",
        "-P",
        "solo",
        "-n",
        THEIRS,
        "-Q",
        "theirs",
    ]
    user = CeleryUser(url)
    with running(*ours, env=env, cwd=HERE) as our_worker, running(*theirs, "-l", "INFO", env=env, cwd=HERE) as celery:
        our_worker.wait_for("is ready")
        celery.wait_for(" ready.", timeout=60)
        while len(user("control", "ping", {}, {"limit": 2})) < 2:  # Celery says that it is ready before it listens
            pass
        yield our_worker, celery, user
        user.close()


@pytest.fixture
def celery(programs) -> CeleryUser:
    return programs[2]


@pytest.fixture
def our_worker(programs) -> Program:
    return programs[0]


@pytest.fixture
async def queue(url):
    async with TaskQueue(url) as queue:
        yield queue


FIRST = {
    "enable_events": ["disable_events"],
    "disable_events": ["enable_events"],
    "cancel_consumer": ["add_consumer", "another"],
}
"""What is to be so before a command: the tests of a process are any of these, in any order."""


class TestTheCommandLineOfCelery:
    """`celery inspect`, `celery control` and `celery status` on our worker."""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["ping"], ["pong"]),
            (["stats"], ['"max-concurrency": 100', '"transport": "redis"', '"rusage": {']),
            (["active"], ["- empty -"]),
            (["reserved"], ["- empty -"]),
            (["scheduled"], ["- empty -"]),
            (["revoked"], []),
            (["registered"], ["* both.sleep", "* ours.add"]),
            (["registered", "max_retries"], ["* ours.add [max_retries=7]"]),
            (["active_queues"], ["'name': 'celery'", "'type': 'direct'"]),
            (["conf"], ['"broker_url": "redis://']),
            (["report"], ["software -> aioretryq"]),
            (["clock"], ['"clock": ']),
            (["query_task", "unknown-id"], ["{}"]),
            (["memsample"], ["MB"]),
            (["memdump"], ["rss"]),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, list) and value and value[0].isidentifier() else "",
    )
    def test_inspect(self, celery, words, said):
        found = celery("cli", "inspect", "-d", OURS, "-t", "10", *words)
        assert found["code"] == 0
        assert f"->  {OURS}: OK" in found["output"]
        assert "1 node online." in found["output"]
        for text in said:
            assert text in found["output"]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["rate_limit", "ours.add", "100/s"], "new rate limit set successfully"),
            (["rate_limit", "ours.add", "0"], "rate limit disabled successfully"),
            (["time_limit", "ours.add", "10", "20"], "time limits set successfully"),
            (["enable_events"], "task events enabled"),
            (["disable_events"], "task events disabled"),
            (["pool_grow", "2"], "pool will grow"),
            (["pool_shrink", "2"], "pool will shrink"),
            (["autoscale", "100", "1"], "autoscale now max=100 min=1"),
            (["add_consumer", "another"], "add consumer another"),
            (["cancel_consumer", "another"], "no longer consuming from another"),
            (["heartbeat"], OURS),
            (["election", "1", "topic"], OURS),
            (["pool_restart"], "there is no pool to restart"),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_control(self, celery, words, said):
        if words[0] in FIRST:
            celery("cli", "control", "-d", OURS, "-t", "10", *FIRST[words[0]])
        found = celery("cli", "control", "-d", OURS, "-t", "10", *words)
        assert (found["code"], said in found["output"]) == (0, True), found["output"]

    def test_status_finds_both_kinds(self, celery):
        found = celery("cli", "status", "-t", "2")
        assert f"->  {OURS}: OK" in found["output"]
        assert f"->  {THEIRS}: OK" in found["output"]
        assert "2 nodes online." in found["output"]


class TestTheClientOfCelery:
    def test_what_runs(self, celery):
        task_id = celery("send", "both.sleep", [60])
        deadline = time.monotonic() + 20
        while not (found := celery("inspect", "query_task", {"ids": [task_id]}, {"destination": [OURS]})[OURS]):
            assert time.monotonic() < deadline
        state, info = found[task_id]
        assert (state, info["name"], info["args"], info["hostname"]) == ("active", "both.sleep", [60], OURS)
        (active,) = celery("inspect", "active", {}, {"destination": [OURS]})[OURS]
        assert active["id"] == task_id
        # Of ours alone: a worker of Celery that hears it stores REVOKED for what it takes to be waiting.
        arguments = {"task_id": task_id, "terminate": True, "signal": "SIGTERM"}
        reply = celery("control", "revoke", arguments, {"destination": [OURS]})
        assert reply == [{OURS: {"ok": f"terminate: {task_id}"}}]
        assert celery("wait", task_id) == {"state": "REVOKED", "value": "TaskRevokedError: terminated"}

    def test_patterns(self, celery):
        for pattern, matcher in (("our*", "glob"), ("our.@", "pcre"), (r"o[a-z]+@lab", "pcre")):
            found = celery("control", "ping", {}, {"pattern": pattern, "matcher": matcher})
            assert found == [{OURS: PONG}]

    def test_unknown_commands_and_wrong_arguments(self, celery):
        assert celery("control", "no_such", {}, {"destination": [OURS]}) == [{OURS: {"error": "KeyError('no_such')"}}]
        (reply,) = celery("control", "rate_limit", {}, {"destination": [OURS]})
        assert "missing 2 required positional arguments" in reply[OURS]["error"]

    def test_commands_of_our_application(self, celery):
        found = celery("inspect", "our_square", {"n": 5}, {"destination": [OURS]})
        assert found == {OURS: {"square": 25}}

    def test_hello_shares_what_is_revoked(self, celery):
        reply = celery("inspect", "hello", {"from_node": "x@lab", "revoked": ["by-mingle"]}, {"destination": [OURS]})
        assert "by-mingle" in reply[OURS]["revoked"]
        assert "by-mingle" in celery("inspect", "revoked", {}, {"destination": [OURS]})[OURS]

    def test_stamps(self, celery):
        reply = celery("control", "revoke_by_stamped_headers", {"headers": {"k": ["v"]}}, {"destination": [OURS]})
        assert reply == [{OURS: {"ok": "headers {'k': ['v']} flagged as revoked, but not terminated"}}]

    def test_replies_that_nobody_takes_go_away(self, celery, url, queue):
        """Celery leaves them in the server for ever."""
        celery("control", "ping", {}, {"limit": 2})
        with redis_client.Redis.from_url(url) as client:
            for key in client.keys("*.reply.celery.pidbox"):
                assert client.ttl(key) in range(-2, 61)


class TestOurClient:
    async def test_both_kinds_answer_and_it_does_not_wait_longer(self, programs, queue):
        began = time.monotonic()
        assert await queue.control.ping(timeout=60) == {OURS: PONG, THEIRS: PONG}
        assert time.monotonic() - began < 20

    @pytest.mark.parametrize(
        "method",
        [
            "active",
            "reserved",
            "scheduled",
            "revoked",
            "registered",
            "active_queues",
            "stats",
            "conf",
            "report",
            "clock",
        ],
    )
    async def test_questions_to_both_get_the_same_kind_of_answer(self, programs, queue, method):
        replies = await getattr(queue.control.inspect(timeout=60), method)()
        assert replies.keys() == {OURS, THEIRS}
        ours, theirs = replies[OURS], replies[THEIRS]
        assert type(ours) is type(theirs)
        if method in ("active_queues", "clock", "report"):
            assert shape(ours) == shape(theirs)
        if method == "stats":
            assert ours.keys() >= theirs.keys()
            assert ours["broker"].keys() == theirs["broker"].keys()
            assert ours["rusage"].keys() == theirs["rusage"].keys()

    async def test_commands_to_celery(self, programs, queue):
        control = queue.control
        told = [
            await control.rate_limit("theirs.echo", "10/s", destination=[THEIRS], timeout=20),
            await control.time_limit("theirs.echo", soft=5, hard=10, destination=THEIRS, timeout=20),
            await control.add_consumer("third", destination=[THEIRS], timeout=20),
            await control.cancel_consumer("third", destination=[THEIRS], timeout=20),
            await control.broadcast("their_square", {"n": 4}, destination=[THEIRS], timeout=20),
        ]
        assert [each[THEIRS] for each in told] == [
            {"ok": "new rate limit set successfully"},
            {"ok": "time limits set successfully"},
            {"ok": "add consumer third"},
            {"ok": "no longer consuming from third"},
            {"square": 16},
        ]

    @pytest.mark.parametrize(
        ("command", "knows", "stranger"), [("our_square", OURS, THEIRS), ("their_square", THEIRS, OURS)]
    )
    def test_commands_that_only_one_kind_has(self, programs, url, command, knows, stranger):
        done = CliRunner().invoke(main, ["inspect", "--own", command, "n=3", "--url", url, "-t", "20"])
        assert done.exit_code == 0, done.output
        assert f"->  {knows}: OK" in done.output
        assert f"{stranger} does not know {command}." in done.output

    def test_a_node_that_is_not_there(self, programs, url):
        named = f"{OURS},{THEIRS},nope@lab"
        done = CliRunner().invoke(main, ["inspect", "ping", "-d", named, "--url", url, "-t", "2"])
        assert (done.exit_code, "No answer from nope@lab." in done.output) == (1, True)

    async def test_celery_hears_our_revocations(self, programs, queue):
        result = await queue.send_task("theirs.echo", [1], queue="theirs", countdown=60)
        await result.revoke()
        with pytest.raises(TaskRevokedError):
            await soon(result.get())
        async with asyncio.timeout(20):
            while result.id not in (await queue.control.inspect(destination=THEIRS, timeout=20).revoked())[THEIRS]:
                await asyncio.sleep(0.01)


def shape(value):
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value)


def test_our_command_line_towards_both(programs, url):
    done = subprocess.run(
        [sys.executable, "-m", "aioretryq", "status", "--url", url, "-t", "20"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"->  {OURS}: OK\n->  {THEIRS}: OK\n\n2 nodes online.\n"


def test_what_celery_revokes_outlives_our_worker(programs, url, celery):
    """A task with a countdown, revoked with Celery; then the worker is restarted before it is due."""
    our_worker = programs[0]
    task_id = celery("send", "ours.add", [1, 2], {"countdown": 2})
    celery("control", "revoke", {"task_id": task_id}, {"destination": None, "limit": 2})
    assert celery("wait", task_id)["state"] == "REVOKED"
    celery("control", "shutdown", {}, {"destination": [OURS]})
    our_worker.wait(30)
    command = [sys.executable, "-m", "aioretryq", "worker", "control_ours:queue", "-n", "second@lab"]
    with running(*command, env={"INTEROP_REDIS": url}, cwd=HERE) as second:
        second.wait_for("is ready")
        deadline = time.monotonic() + 20
        while task_id not in celery("inspect", "revoked", {}, {"destination": ["second@lab"]})["second@lab"]:
            assert time.monotonic() < deadline, "it learns of revocations with its first claim"
        dropped = f"ours.add[{task_id}] was not run to its end: revoked"
        if dropped not in our_worker.output:  # else the first one was slow to stop
            second.wait_for(dropped)
        assert celery("wait", task_id) == {"state": "REVOKED", "value": "TaskRevokedError: revoked"}
        assert "succeeded" not in second.output
