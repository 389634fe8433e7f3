"""`aioretryq workflow` as it is typed, on workers in processes of their own."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.live import Live

from aioretryq import TaskQueue
from aioretryq.canvas import chain, chord, group, signature
from aioretryq.cli import main
from aioretryq.cli.workflow import picture
from aioretryq.cli.workflow_tree import as_json, is_done, lines, tally
from aioretryq.drawing.trees import Share, Tree
from aioretryq.protocol.result import ResultDocument
from programs import aioretryq_worker, environment, running
from queues import soon

HERE = Path(__file__).parent
AIORETRYQ = [sys.executable, "-m", "aioretryq"]


def s(name, *args):
    return signature(f"w.{name}", args)


# -- lines and JSON

TREE = Tree(
    "",
    kind="chain",
    children=(
        Tree("fetch", "id-1", "SUCCESS"),
        Tree(
            "",
            "id-2",
            kind="group",
            children=(
                Tree("parse", "id-3", "SUCCESS"),
                Tree("parse", "id-4", "FAILURE", children=(Tree("alarm", "id-5", "STARTED", role="link"),)),
                Tree("check", state="SUCCESS", count=1000),
            ),
            share=Share(1002, 1, 1003),
        ),
        Tree("", "id-6", "PENDING"),
    ),
)


def test_a_tree_as_lines():
    assert lines(TREE, "id-4") == [
        "chain",
        "├─ fetch              SUCCESS  id-1",
        "├─ group: 1,002 of 1,003 done, 1 failed",
        "│  ├─ parse           SUCCESS  id-3",
        "│  ├─ parse           FAILURE  id-4  <--",
        "│  │  └─ link: alarm  STARTED  id-5",
        "│  └─ check x 1,000   SUCCESS",
        "└─ task               PENDING  id-6",
    ]


def test_a_tree_as_json():
    found = as_json(TREE)
    assert found["kind"] == "chain"
    first, second, third = found["children"]
    assert first == {"kind": "task", "task": "fetch", "id": "id-1", "state": "SUCCESS"}
    assert second["members"] == {"done": 1002, "failed": 1, "total": 1003}
    assert second["children"][2] == {"kind": "task", "task": "check", "state": "SUCCESS", "count": 1000}
    assert second["children"][1]["children"][0]["role"] == "link"
    assert third == {"kind": "task", "id": "id-6", "state": "PENDING"}


def test_when_it_is_done():
    assert not is_done(TREE)
    assert is_done(TREE.children[0])
    assert not is_done(Tree("", kind="group", share=Share(1, 0, 2)))
    assert tally(TREE) == {"SUCCESS": 1002, "FAILURE": 1, "STARTED": 1, "PENDING": 1}


def test_nobody_rules_the_terminal():
    hostile = Tree("\x1b[2J\nx", "i\x07", "S\u202e", children=(Tree("\r", "\x00"),))
    shown = "".join(lines(hostile))
    assert shown.isprintable()


# -- the command


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def place(request, redis_server, tmp_path_factory):
    """URL of a queue with a running worker."""
    url = f"sqlite:///{tmp_path_factory.mktemp('workflow')}/queue.sqlite3"
    if request.param == "redis":
        url = f"redis://127.0.0.1:{redis_server.port}/11"
    env = {"AIORETRYQ_URL": url}
    with aioretryq_worker("workflow_application:queue", env=env, cwd=HERE):
        yield url


def sent(url, workflow, *, save=False, wait=True):
    """The result, when it has ended."""

    async def send():
        async with TaskQueue(url) as queue:
            result = await type(workflow)(workflow.node, queue).delay()
            if save:
                await result.save()
            if wait:
                await soon(result.finished())
            return result

    return asyncio.run(send())


def ran(*arguments, url):
    with running(*AIORETRYQ, "workflow", *arguments, "--url", url, env={"PYTHONIOENCODING": "utf-8"}) as program:
        return program.wait(), program.lines


def test_the_whole_by_the_id_of_its_result(place):
    result = sent(place, s("add", 1) | group(s("add", 1), s("add", 2)) | s("total"))
    code, shown = ran(result.id, url=place)
    assert code == 0
    assert [line.split()[:3] for line in shown] == [
        ["chain"],
        ["├─", "w.add", "SUCCESS"],
        ["├─", "group:", "2"],
        ["│", "├─", "w.add"],
        ["│", "└─", "w.add"],
        ["└─", "w.total", "SUCCESS"],
    ]
    assert shown[-1].endswith(f"{result.id}  <--")


def test_by_the_id_of_a_step(place):
    """What has begun tells who has sent it."""
    result = sent(place, chain(s("add", 1), s("add", 2), s("add", 3)))
    middle, first = result.parent, result.parent.parent
    code, shown = ran(middle.id, url=place)
    assert code == 0
    assert [line.split()[-1] for line in shown if "w." in line or "task" in line] in (
        [first.id, "<--", result.id],
        [first.id, middle.id, result.id],
    )
    assert any(line.endswith(f"{middle.id}  <--") for line in shown)


def test_by_the_id_of_a_saved_group(place):
    result = sent(place, group(s("add", 1), s("fail")), save=True)
    code, shown = ran(result.id, url=place)
    assert code == 0
    assert shown[0].startswith("group: 2 of 2 done, 1 failed")
    assert "FAILURE" in shown[2]


def test_one_task(place):
    result = sent(place, s("add", 1))
    code, shown = ran(result.id, url=place)
    assert code == 0
    assert [line.split() for line in shown] == [["task", "SUCCESS", result.id, "<--"]]


def test_large_groups_with_states_and_names(place):
    """Also of steps after it that are still to come."""
    members = [s("add", number) for number in range(149)]
    result = sent(place, chord([*members, s("wait", 1)], s("total")) | s("add", 1), wait=False)

    async def ended():
        async with TaskQueue(place) as queue:
            await queue.results.delete_group("go-on")
            found = (await queue.workflow(result.id)).parent.parent
            async for done, _ in found.progress():
                if done == 149:
                    return

    asyncio.run(ended())
    code, shown = ran(result.id, url=place)
    assert code == 0
    assert [line.split() for line in shown][:2] == [["chain"], ["├─", "group:", "149", "of", "150", "done"]]
    assert [line.split()[2:-1] for line in shown[2:4]] == [["w.add", "x", "149"], ["w.wait", "STARTED"]]
    assert shown[2].split()[-1] == "SUCCESS"
    assert [line.split()[1:3] for line in shown[4:]] == [["w.total", "PENDING"], ["w.add", "PENDING"]]
    code, (line,) = ran(result.id, "--json", url=place)
    header = json.loads(line)["children"][0]
    assert header["members"] == {"done": 149, "failed": 0, "total": 150}

    async def go_on():
        async with TaskQueue(place) as queue:
            await queue.results.save_group("go-on", True)

    asyncio.run(go_on())


@pytest.mark.parametrize("form", ["--json", "--dot", "--mermaid"])
def test_other_forms(place, form):
    result = sent(place, chord([s("add", 1), s("add", 2)], s("total")))
    code, shown = ran(result.id, form, url=place)
    assert code == 0
    if form == "--json":
        (line,) = shown
        header, body = json.loads(line)["children"]
        assert [each["state"] for each in header["children"]] == ["SUCCESS"] * 2
        assert (body["id"], body["task"]) == (result.id, "w.total")
    else:
        assert shown[0] == {"--dot": "digraph workflow {", "--mermaid": "flowchart TD"}[form]
        assert "w.total" in "\n".join(shown)


def test_steps_that_are_still_to_come(place):
    async def forget():
        async with TaskQueue(place) as queue:
            await queue.results.delete_group("go-on")

    asyncio.run(forget())
    result = sent(place, chain(s("add", 1), s("wait"), s("add", 5), group(s("add", 1), s("add", 2))), wait=False)
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*AIORETRYQ, "workflow", result.id, "-b", place],
        env={**environment(), "TERM": "xterm", "COLUMNS": "120", "LINES": "40", "PYTHONIOENCODING": "utf-8"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = read_until(ours, b"STARTED")
        assert b"PENDING" in shown
        assert b"0 of 2 done" in shown

        async def go_on():
            async with TaskQueue(place) as queue:
                await queue.results.save_group("go-on", True)

        asyncio.run(go_on())
        read_until(ours, b"2 of 2 done")
        assert program.wait(20) == 0
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def test_lines_that_are_too_long_are_cut():
    """A tree that is folded cannot be read."""
    with Live(picture(TREE, "", ""), console=Console(width=20, file=io.StringIO(), force_terminal=True)) as live:
        shown = ["".join(each.text for each in line) for line in live.console.render_lines(live.get_renderable())]
    assert len(shown) == len(lines(TREE))
    assert shown[1] == "├─ fetch           …"


def read_until(descriptor, text):
    shown = b""
    while text not in shown:
        piece = os.read(descriptor, 65536)
        assert piece, shown
        shown += piece
    return shown


def test_what_nobody_knows(place):
    code, shown = ran("nosuch", url=place)
    assert code == 1
    (line,) = shown
    assert line.startswith("Error: Nothing is stored of 'nosuch' in ")
    assert "Try the id of a step that has begun" in line


def test_what_a_celery_client_has_composed(tmp_path):
    """Known by who has sent which, and by the group that it has saved."""
    url = f"sqlite:///{tmp_path}/queue.sqlite3"

    async def store():
        async with TaskQueue(url) as queue:
            for task_id, state, parent, children in [
                ("first", "SUCCESS", None, [[["second", None], None]]),
                ("second", "RETRY", "first", [[["second", None], None], [["third", None], None]]),
                ("body", "SUCCESS", "x", [[["after", None], None]]),
                ("after", "SUCCESS", "body", []),
            ]:
                document = ResultDocument(task_id=task_id, status=state, parent_id=parent, children=children)
                await queue.results.store([queue.results.record(document)])
            await queue.results.save_group("saved", [["saved", None], [[["first", None], None], [["x", None], None]]])

    asyncio.run(store())
    code, shown = ran("second", "--once", url=url)
    assert code == 0
    assert [line.split()[1:] for line in shown[1:]] == [
        ["task", "SUCCESS", "first"],
        ["task", "RETRY", "second", "<--"],
        ["task", "PENDING", "third"],
    ]
    code, shown = ran("after", url=url)
    assert [line.split()[-1] for line in shown] == ["chain", "body", "<--"]
    code, shown = ran("saved", url=url)
    assert code == 0
    assert shown[0] == "group: 1 of 2 done  <--"
    assert [line.split()[-1] for line in shown[2:]] == ["first", "second", "third", "x"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["x", "--url", "memory://"], 2, "exists in one process only"),
        (["x", "--url", "nosuch://x"], 2, "nosuch"),
        (["x", "--url", "redis://127.0.0.1:1/0"], 69, "127.0.0.1:1"),
        (["x", "--url", "sqlite:///nosuch.sqlite3"], 2, "There is no file"),
        (["x", "a:b", "--app", "c:d"], 2, "given twice"),
        (["x", "--json", "--dot"], 2, "--json or --dot"),
        (["x", "--mermaid", "--json"], 2, "--mermaid or --json"),
        ([], 2, "Missing argument 'ID'"),
    ],
)
def test_mistakes(arguments, code, said):
    done = CliRunner().invoke(main, ["workflow", *arguments])
    assert done.exit_code == code
    assert said in done.output.replace("\n", " ")


def test_results_that_are_not_stored(tmp_path):
    url = f"sqlite:///{tmp_path}/queue.sqlite3"
    (tmp_path / "queue.sqlite3").touch()
    done = CliRunner().invoke(main, ["workflow", "x", "--url", url, "--backend", "disabled"])
    assert done.exit_code == 2
    assert "set result_backend" in done.output
