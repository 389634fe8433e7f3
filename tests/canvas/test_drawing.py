"""Pictures of workflows, as Mermaid and DOT."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import pytest
from canvas.conftest import define
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import ConfigError, TaskQueue, Worker
from aioretryq.canvas import chain, chord, group, signature
from aioretryq.drawing.pictures import Tree, dot, draw, mermaid, tree_of, tree_of_result
from aioretryq.drawing.trees import MOST, TOGETHER
from aioretryq.protocol.result import ResultDocument
from queues import memory_url, soon

# -- what Mermaid and Graphviz can read

MERMAID_TEXT = r'"(?:[^"&<>`#;:{}|\\\n]|#\d+;|<br/>)*"'
MERMAID = [
    re.compile(each)
    for each in (
        r"flowchart TD",
        rf" *subgraph g\d+\[({MERMAID_TEXT})\]",
        r" *end",
        rf" *n\d+(?:\[({MERMAID_TEXT})\]|\(({MERMAID_TEXT})\)|\(\({MERMAID_TEXT}\)\))",
        rf" *n\d+ (?:-->|-\.->)(?:\|{MERMAID_TEXT}\|)? n\d+",
        r" *classDef [a-z]+ fill:#[0-9a-f]{6},color:#000000",
        r" *class n\d+(?:,n\d+)* [a-z]+",
    )
]
DOT_TEXT = r'"(?:[^"\\\n]|\\["\\n])*"'
DOT_LOOK = rf"\[[a-z]+=(?:[a-zA-Z]+|{DOT_TEXT})(?:, [a-z]+=(?:[a-zA-Z]+|{DOT_TEXT}))*\]"
DOT = [
    re.compile(each)
    for each in (
        r"digraph workflow \{",
        r" *(?:graph|node) \[.*\];",
        r" *subgraph cluster_g\d+ \{",
        r" *\}",
        rf" *label=({DOT_TEXT});",
        rf" *n\d+ {DOT_LOOK};",
        rf" *n\d+ -> n\d+(?: {DOT_LOOK})?;",
    )
]


def check_mermaid(text):
    """It is what the grammar allows, blocks are closed, and arrows are between boxes that there are."""
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    for line in lines:
        assert any(each.fullmatch(line) for each in MERMAID), line
    assert sum(line.lstrip().startswith("subgraph") for line in lines) == sum(line.strip() == "end" for line in lines)
    boxes = set(re.findall(r"^ *(n\d+)[\[(]", text, re.MULTILINE))
    arrows = re.findall(r"^ *(n\d+) -.*>.* (n\d+)$", text, re.MULTILINE)
    assert {end for arrow in arrows for end in arrow} <= boxes


def check_dot(text):
    assert text.endswith("}\n")
    depth = 0
    for line in text[:-1].split("\n"):
        assert any(each.fullmatch(line) for each in DOT), line
        depth += line.endswith("{") - (line.strip() == "}")
        assert depth >= 0
    assert depth == 0
    if (program := shutil.which("dot")) is not None:
        subprocess.run([program, "-Tsvg"], input=text.encode(), check=True, capture_output=True)


def shown_by_mermaid(text):
    """The texts of its boxes, as they are read."""
    quoted = re.findall(rf"^ *n\d+[\[(]({MERMAID_TEXT})[\])]$", text, re.MULTILINE)
    return [re.sub(r"#(\d+);", lambda found: chr(int(found[1])), each[1:-1]) for each in quoted]


def shown_by_dot(text):
    quoted = re.findall(rf"^ *n\d+ \[label=({DOT_TEXT})", text, re.MULTILINE)
    unescaped = [re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), each[1:-1]) for each in quoted]
    return [html.unescape(each) for each in unescaped]


# -- what was composed


def s(name, *args, **options):
    return signature(name, args, options=options)


def test_a_workflow_as_mermaid():
    text = (s("fetch") | group(s("parse"), s("check") | s("clean")) | s("store")).draw()
    assert text == (
        "flowchart TD\n"
        '    n1["fetch"]\n'
        '    subgraph g1["group"]\n'
        '        n2["parse"]\n'
        '        n3["check"]\n'
        '        n4["clean"]\n'
        "    end\n"
        '    n5["store"]\n'
        "    n3 --> n4\n"
        "    n2 --> n5\n"
        "    n4 --> n5\n"
        "    n1 --> n2\n"
        "    n1 --> n3\n"
    )
    check_mermaid(text)


def test_a_workflow_as_dot():
    text = chord([s("parse"), s("check")], s("store")).draw("dot")
    assert text == (
        "digraph workflow {\n"
        '    graph [rankdir=TB, charset="UTF-8"];\n'
        '    node [shape=box, style="rounded,filled", fillcolor="#ffffff"];\n'
        "    subgraph cluster_g1 {\n"
        '        label="group";\n'
        '        n1 [label="parse"];\n'
        '        n2 [label="check"];\n'
        "    }\n"
        '    n3 [label="store"];\n'
        "    n1 -> n3;\n"
        "    n2 -> n3;\n"
        "}\n"
    )
    check_dot(text)


def test_links_are_arrows_with_a_name():
    text = s("fetch").link(s("note")).link_error(s("alarm")).draw()
    assert '    n1 -->|"link"| n2\n' in text
    assert '    n1 -.->|"link_error"| n3\n' in text
    check_mermaid(text)
    check_dot(s("fetch").link(s("note")).link_error(s("alarm")).draw("dot"))


def test_other_kinds_are_refused():
    with pytest.raises(ConfigError, match="'mermaid' or 'dot', not as 'svg'"):
        s("fetch").draw("svg")


def test_dictionaries_are_drawn_too():
    composed = s("a") | s("b")
    assert tree_of(composed.to_dict()) == tree_of(composed)


def test_what_a_map_calls():
    tree = tree_of({"task": "celery.map", "kwargs": {"task": {"task": "add"}, "it": []}, "subtask_type": "xmap"})
    assert tree.text == "celery.map: add"


def test_many_equal_members_are_one():
    tree = tree_of(group(s("add", number) for number in range(100_000)))
    assert [each.text for each in tree.children] == ["add x 1,000", "more of a generator"]
    tree = tree_of(group([s("add", number) for number in range(99_950)] + [s("mul")] * 50))
    assert [each.text for each in tree.children] == ["add x 99,950", *["mul"] * 50]
    few = tree_of(group([s("add")] * TOGETHER))
    assert len(few.children) == TOGETHER


def test_many_equal_workflows_are_one():
    text = group([s("a") | s("b")] * 1000).draw()
    assert "chain x 1,000" in text
    assert shown_by_mermaid(text) == ["a", "b"]
    check_mermaid(text)


def test_many_different_members_are_cut():
    tree = tree_of(group([s(f"task{number}") for number in range(1000)]))
    assert len(tree.children) == MOST + 1
    assert tree.children[-1].text == f"{1000 - MOST} more"
    check_mermaid(mermaid(tree))


def test_long_chains():
    tree = tree_of(chain([s("first"), *[s("add")] * 2000, s("last")]))
    assert [each.text for each in tree.children] == ["first", "add x 2,000", "last"]
    different = tree_of(chain([s(f"task{number}") for number in range(1000)]))
    assert len(different.children) == MOST + 1
    assert different.children[-1].text == "task999"


def test_groups_after_each_other_meet_in_a_point():
    text = chain(group([s(f"a{n}") for n in range(20)]), group([s(f"b{n}") for n in range(20)])).draw()
    assert len(re.findall("-->", text)) == 40
    check_mermaid(text)
    check_dot(chain(group([s(f"a{n}") for n in range(20)]), group([s(f"b{n}") for n in range(20)])).draw("dot"))


def test_drawing_reads_no_generator():
    members = group(s("add", number) for number in range(5000))
    members.draw()
    assert sum(1 for _ in members.node.steps) == 5000


@pytest.mark.parametrize("workflow", [group(), chord([], s("body")), group(group(), s("a"))], ids=repr)
def test_empty_ones(workflow):
    check_mermaid(workflow.draw())
    check_dot(workflow.draw("dot"))


# -- hostile names

HOSTILE = st.text(min_size=1) | st.sampled_from(
    [
        'a"b',
        'a\\"b',
        "a\nb\r\nc",
        "a --> b",
        'x"]; n1 --> n2 %%',
        "end",
        "subgraph",
        "<script>alert(1)</script>",
        "<br/>",
        "#quot;",
        "&quot;",
        "&amp;lt;",
        "`code`",
        "style a:#35;b",
        "\\N",
        "\\",
        "%%{init: {}}%%",
        "\x00\x1b[31m",
        "\ud800",
        "\u202eabc",
        "пример 🦊 例",
        "click n1 callback",
        "]]]))}}",
        ":::failure",
    ]
)


def readable(text):
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_any_name_is_shown_as_it_is(name, other, state):
    inner = Tree(name, id=other, state=state)
    tree = Tree("", kind="chain", children=(inner, Tree("", id=name, kind="group", state=other, children=(inner,))))
    text = mermaid(tree)
    check_mermaid(text)
    shown = [each.replace("<br/>", "\n") for each in shown_by_mermaid(text)]
    if "<br/>" not in name + state:
        assert shown == [f"{readable(name)}\n{readable(state)}"] * 2
    text = dot(tree)
    check_dot(text)
    assert shown_by_dot(text) == [f"{lines_kept(name)}\n{lines_kept(state)}"] * 2


def lines_kept(text):
    return "\n".join(map(readable, text.split("\n")))


# -- what came of it


@pytest.fixture
async def queue():
    async with TaskQueue(memory_url(), result_extended=True) as queue:
        define(queue, [])
        yield queue


async def test_a_finished_workflow_with_its_states(queue):
    async with Worker(queue).running():
        result = await soon((group(queue.tasks["w.add"].s(1), queue.tasks["w.fail"].s()) | s("w.total")).delay())
        with pytest.raises(ValueError, match="broken"):
            await soon(result.get())
        await soon(result.get(propagate=False, follow_parents=False))
    text = await result.draw()
    check_mermaid(text)
    assert shown_by_mermaid(text) == ["w.add<br/>SUCCESS", "w.fail<br/>FAILURE", "w.total<br/>FAILURE"]
    assert "    class n1 success\n" in text
    assert "    class n2,n3 failure\n" in text
    text = await result.parent.draw("dot")
    check_dot(text)
    assert 'fillcolor="#c8e6c9"' in text
    with pytest.raises(ConfigError, match="'mermaid' or 'dot'"):
        await result.draw("png")


async def stored(queue, task_id, *children, parent_id=None, **fields):
    document = ResultDocument(
        task_id=task_id, status="SUCCESS", children=list(children), parent_id=parent_id, **fields
    )
    await queue.results.store([queue.results.record(document)])


async def test_children_are_followed_once(queue):
    """A retried Celery task lists itself."""
    await stored(queue, "a", [["a", None], None], [["b", None], None], name="first")
    await stored(queue, "b", [["a", None], None], [["c", None], None], [["d", None], None])
    await stored(queue, "c", [["g", None], [[["b", None], None], [["e", None], None]]])
    tree = await tree_of_result(queue.AsyncResult("a"))
    first, second = tree.children
    assert (first.label, first.id) == ("first", "a")
    assert second.id == "b"
    c, d = second.children
    assert [each.id for each in c.children] == ["c", "g"]
    assert [each.id for each in c.children[1].children] == ["e"]
    assert (d.id, d.state) == ("d", "PENDING")


async def test_a_long_line_of_children_needs_no_stack(queue):
    for number in range(1500):
        await stored(queue, f"t{number}", [[f"t{number + 1}", None], None], name=f"task{number}")
    tree = await tree_of_result(queue.AsyncResult("t0"))
    assert len(tree.children) == MOST + 1
    check_mermaid(draw(tree))


async def test_a_deep_tree_is_cut(queue):
    for number in range(300):
        await stored(queue, f"t{number}", [[f"t{number + 1}", None], None], [[f"other{number}", None], None])
    check_dot(draw(await tree_of_result(queue.AsyncResult("t0")), "dot"))
