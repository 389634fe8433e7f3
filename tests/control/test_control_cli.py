"""`aioretryq inspect|control|status` against workers in programs of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from aioretryq.cli import main
from aioretryq.cli.control import FAILED, NOBODY
from programs import running

HERE = Path(__file__).parent
NODES = ["one@lab", "two@lab"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(URL, process of the second worker) of a queue with two workers."""
    found = f"sqlite:///{tmp_path_factory.mktemp('control')}/queue.sqlite3"
    env = {"CONTROL_URL": found}
    command = [sys.executable, "-m", "aioretryq", "worker", "control_application:queue", "-n"]
    with (
        running(*command, NODES[0], env=env, cwd=HERE) as one,
        running(*command, NODES[1], env=env, cwd=HERE) as two,
    ):
        one.wait_for("is ready")
        two.wait_for("is ready")
        yield found, two


@pytest.fixture
def url(place):
    return place[0]


@contextmanager
def stopped(place):
    """The second worker hears and does not answer."""
    pid = place[1].process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def nobody(tmp_path):
    """A broker without workers."""
    (tmp_path / "empty.sqlite3").touch()
    return f"sqlite:///{tmp_path}/empty.sqlite3"


def run(*words, code=0):
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == code, done.output
    return done.output


def test_status(url):
    assert run("status", "--url", url, "-t", "15") == "->  one@lab: OK\n->  two@lab: OK\n\n2 nodes online.\n"
    assert run("status", "--url", url, "-d", "one@lab", "-t", "15").endswith("1 node online.\n")
    assert json.loads(run("status", "--url", url, "--json", "-t", "15")) == {node: {"ok": "pong"} for node in NODES}


def test_questions(url):
    assert run("inspect", "--url", url, "-t", "15", "registered", "max_retries").splitlines()[1:3] == [
        "        * lab.add [max_retries=5]",
        "        * lab.plain [max_retries=3]",
    ]
    assert "- empty -" in run("inspect", "--url", url, "-t", "15", "active", "safe=yes")
    assert '"max-concurrency": 100' in run("inspect", "--url", url, "-t", "15", "stats")
    found = json.loads(run("inspect", "--url", url, "-j", "-t", "15", "query_task", "a", "b"))
    assert found == {node: {} for node in NODES}


def test_patterns(url):
    assert "two@lab" not in run("inspect", "ping", "--url", url, "-p", "one*", "-t", "0.3")
    assert "one@lab" in run("inspect", "ping", "--url", url, "-p", "o.e@", "--matcher", "pcre", "-t", "0.3")
    assert "for ever" in run("inspect", "ping", "--url", url, "-p", "(a+)+", "--matcher", "pcre", code=2)


def test_commands(url):
    told = run("control", "--url", url, "-t", "15", "rate_limit", "lab.add", "5/m", "-d", "one@lab")
    assert told == "->  one@lab: OK\n        new rate limit set successfully\n\n1 node online.\n"
    assert "flagged as revoked" in run("control", "--url", url, "-t", "15", "revoke", "some-id")
    revoked = json.loads(run("inspect", "--url", url, "-j", "-t", "15", "revoked"))
    assert revoked == {node: ["some-id"] for node in NODES}
    assert "unknown task" in run("control", "--url", url, "-t", "15", "time_limit", "nope", "1", code=FAILED)


def test_commands_of_the_application(url, monkeypatch):
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    app = "control_application:queue"
    for words in ([app, "square", "5"], ["-A", app, "square", "n=5"]):
        found = json.loads(run("inspect", "-j", "-t", "15", *words, "--url", url))
        assert found == {node: {"node": node, "square": 25} for node in NODES}
    assert "HELLO THERE" in run("control", app, "shout", "hello", "there", "--url", url, "-t", "15")
    assert "HELLO" in run("control", "shout", 'words=["hello"]', "--own", "--url", url, "-t", "15")


def test_the_application_lists_its_own_commands(monkeypatch):
    monkeypatch.chdir(HERE)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    app = "control_application:queue"
    for words in ([app, "--list"], ["-A", app, "--list"]):
        listed = run("inspect", *words)
        assert "square [N]" in listed
        assert "shout" not in listed
        assert "ping" in listed


def test_nobody_answers(nobody):
    assert "No node has answered" in run("status", "--url", nobody, code=NOBODY)
    assert "Asked were a@b, c@d" in run("inspect", "ping", "-d", "a@b,c@d", "--url", nobody, code=NOBODY)
    assert run("control", "shutdown", "--url", nobody, "-j", code=NOBODY).startswith("{}")
    assert "No node has answered" in run("control", "revoke", "x", "-d", "a@b", "--url", nobody, code=NOBODY)


@pytest.mark.parametrize("words", [["revoke", "x"], ["terminate", "TERM", "x"], ["revoke_by_stamped_headers", "a=b"]])
def test_revocations_are_written_down_without_workers(nobody, words):
    assert "written down for workers that start later" in run("control", *words, "--url", nobody)


def test_an_unreachable_broker():
    assert "127.0.0.1:1" in run("status", "--url", "redis://127.0.0.1:1/0", code=NOBODY)


def test_nodes_that_do_not_answer(place):
    url, _ = place
    said = run("inspect", "ping", "--url", url, "-d", "one@lab,nope@lab", "-t", "0.5", code=FAILED)
    assert "->  one@lab: OK" in said
    assert "No answer from nope@lab." in said
    with stopped(place):
        said = run("status", "--url", url, "-t", "0.5", code=FAILED)
        assert "1 node online." in said
        assert "1 of 2 that heard it did not answer." in said
        assert "No answer from two@lab." in run("status", "--url", url, "-d", "two@lab,one@lab", "-t", "0.5", code=1)


def test_a_command_that_only_some_nodes_have(url, tmp_path):
    """The others are no failure as long as somebody has it."""
    env = {"CONTROL_URL": url}
    command = [sys.executable, "-m", "aioretryq", "worker", "other_application:queue", "-n", "three@lab"]
    with running(*command, env=env, cwd=HERE) as three:
        three.wait_for("is ready")
        said = run("inspect", "--own", "largest", "--url", url, "-t", "15")
        assert "->  three@lab: OK" in said
        assert "one@lab does not know largest." in said
        assert "->  one@lab" not in said
    assert "KeyError" in run("inspect", "--own", "largest", "--url", url, "-d", ",".join(NODES), "-t", "15", code=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "pnig"], "Did you mean 'ping'?"),
        (["inspect", "shutdown"], "is used with `aioretryq control`"),
        (["control", "stats"], "is used with `aioretryq inspect`"),
        (["inspect", "ping", "x"], "ping takes no arguments, not 'x'"),
        (["control", "pool_grow", "many"], "pool_grow: n is a whole number, not 'many'"),
        (["control", "rate_limit"], "task_name and rate_limit are missing"),
        (["control", "rate_limit", "foo=1"], "it has no argument 'foo'"),
        (["control", "rate_limit", "lab.add", "bogus"], "is a rate like '10/s'"),
        (["control", "time_limit", "lab.add", "soon"], "soft is a number of seconds, not 'soon'"),
        (["control", "revoke"], "task_id is missing"),
        (["control", "revoke", ""], "an empty one"),
        (["control", "revoke", "x", "terminat=yes"], "Did you mean 'terminate'?"),
        (["control", "revoke", "x", "terminate=perhaps"], "terminate is yes or no, not 'perhaps'"),
        (["control", "terminate", "some-id"], "task_id is missing"),
        (["control", "revoke_by_stamped_headers", "word"], "stamps are"),
        (["control", "cancel_consumer", ""], "queue is empty"),
        (["inspect", "query_task"], "ids is missing"),
        (["inspect", "hello"], "from_node is missing"),
        (["inspect", "ping", "-d", ","], "no node is named"),
        (["inspect", "ping", "-p", "(", "--matcher", "pcre"], "is no regular expression"),
        (["inspect", "ping", "--url", "nosuch://x"], "nosuch"),
        (["inspect", "-A", "one:queue", "two:queue", "ping"], "given twice: --app one:queue and two:queue"),
        (["status", "-A", "one:queue", "two:queue"], "given twice"),
        (["control", "own", "--own", "x"], "is name=value"),
        (["inspect"], "Give a COMMAND"),
        (["inspect", "app.module:queue"], "Give a COMMAND"),
        (["inspect", "app.module:queue", "ping"], "There is no module"),
        (["status", "word"], "is not an application"),
        (["inspect", "ping", "--url", "memory://"], "only their own process"),
        (["inspect", "ping", "--url", "sqlite:///nowhere/file"], "There is no file"),
    ],
)
def test_mistakes(url, monkeypatch, words, said):
    monkeypatch.setenv("AIORETRYQ_URL", url)
    assert said in run(*words, code=2)


def test_lists():
    assert "ping" in run("inspect", "--list")
    assert "rate_limit TASK 10/s|100/m|5/h|0" in run("control", "--list")
    assert "hello" not in run("inspect", "--list")
