"""examples/dead_letters.py as its first lines say to run it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from programs import ROOT, aioretryq_worker, running
from queues import PATIENCE

APP = "examples.dead_letters:queue"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def output(folder: Path, *arguments: str) -> str:
    with running(sys.executable, "-m", *arguments, env={"AIORETRYQ_URL": ""}, cwd=folder) as program:
        assert program.wait() == 0, program.output
    return program.output


def until_printed(folder: Path, text: str) -> None:
    """A caller knows of the failure before the message is buried."""
    deadline = time.monotonic() + PATIENCE
    while text not in (shown := output(folder, "aioretryq", "dead", "list")):
        assert time.monotonic() < deadline, shown


def test_kept_and_sent_again_or_forwarded(folder):
    env = {"AIORETRYQ_URL": "", "PYTHONPATH": os.fspath(ROOT)}
    with aioretryq_worker(APP, env=env, cwd=folder) as worker:
        said = output(folder, "examples.dead_letters")
        assert "no mail server for ann@example.org" in said
        assert "no mail server for bob@example.org" in said
        until_printed(folder, "examples.dead_letters.send_mail")
        listed = output(folder, "aioretryq", "dead", "list").splitlines()
        assert len(listed) == 2
        assert "retries exhausted" in listed[1]
        shown = output(folder, "aioretryq", "dead", "show", listed[1].split()[0])
        assert "3 attempts" in shown
        assert shown.count("ConnectionError('no mail server for ann@example.org')") >= 3

        (folder / "mail_server_is_up").touch()
        assert "Sent 1 message again." in output(folder, "aioretryq", "dead", "replay")
        worker.wait_for("send_mail", count=4)
        worker.wait_for("succeeded")
        assert "There are no dead letters" in output(folder, "aioretryq", "dead", "list")
        assert "bob@example.org',) has failed" not in worker.output

    with aioretryq_worker(APP, "-Q", "dead_emails", env=env, cwd=folder) as only:
        only.wait_for("examples.dead_letters.send_newsletter[")
        only.wait_for("['bob@example.org'] has failed: ConnectionError('no mail server for bob@example.org')")
