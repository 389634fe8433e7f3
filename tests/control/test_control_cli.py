"""`aioretryq inspect|control|status` against workers in programs of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from aioretryq.cli import main
from aioretryq.cli.control import FAILED, NOBODY
from programs import running

HERE = Path(__file__).parent
NODES = ["one@lab", "two@lab"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Of a queue with two workers."""
    found = f"sqlite:///{tmp_path_factory.mktemp('control')}/queue.sqlite3"
    env = {"CONTROL_URL": found}
    command = [sys.executable, "-m", "aioretryq", "worker", "control_application:queue", "-n"]
    with (
        running(*command, NODES[0], env=env, cwd=HERE) as one,
        running(*command, NODES[1], env=env, cwd=HERE) as two,
    ):
        one.wait_for("is ready")
        two.wait_for("is ready")
        yield found


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
    assert "for ever" in run("inspect", "ping", "--url", url, "-p", "(a+)+", "--matcher", "pcre", code=1)


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


def test_nobody_answers(tmp_path):
    nobody = f"sqlite:///{tmp_path}/empty.sqlite3"
    (tmp_path / "empty.sqlite3").touch()
    assert "No node has answered" in run("status", "--url", nobody, code=NOBODY)
    assert "No node has answered" in run("inspect", "ping", "--url", nobody, code=NOBODY)
    assert run("control", "shutdown", "--url", nobody, "-j", code=NOBODY).startswith("{}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect", "pnig"], "Did you mean 'ping'?"),
        (["inspect", "shutdown"], "is used with `aioretryq control`"),
        (["control", "stats"], "is used with `aioretryq inspect`"),
        (["inspect", "ping", "x"], "ping takes no arguments, not 'x'"),
        (["control", "pool_grow", "many"], "invalid literal"),
        (["control", "own", "--own", "x"], "is name=value"),
        (["inspect"], "Missing argument"),
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
