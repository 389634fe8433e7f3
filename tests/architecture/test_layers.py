"""Imports go down only. The table is the architecture; there is no list of exceptions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import aioretryq

PACKAGE = Path(aioretryq.__file__).parent

LAYERS = [
    (
        "vocabulary",
        [
            "lazy",
            "errors",
            "states",
            "message",
            "outcome",
            "celery_settings.table",
            "celery_settings.options",
            "celery_settings.names",
            "celery_settings.urls",
            "queues",
            "setting_values",
            "setting_sources",
            "config",
        ],
    ),
    ("rules", ["rates", "retry", "routing", "topology", "outage", "deadlines", "protocol"]),
    ("ports", ["brokers.base", "backends.base"]),
    ("drivers", ["drivers"]),
    ("adapters", ["brokers", "backends"]),
    (
        "user",
        [
            "batching",
            "connections",
            "tally",
            "exchanging",
            "events",
            "context",
            "control",
            "custom_commands",
            "revoking",
            "soft_limit",
            "dead",
            "dead_messages",
            "execution",
            "calling",
            "composing",
            "linking",
            "canvas",
            "drawing",
            "workflows",
            "publishing",
            "sending",
            "sending_many",
            "plain_calls",
            "ids",
            "results",
            "eager",
            "task",
            "task_options",
            "task_hooks",
            "foreign",
            "registration",
            "celery_settings",
            "app",
        ],
    ),
    ("runtime", ["worker", "celery_bridge"]),
    ("shell", ["cli", "__main__", ""]),
]
DOCUMENT = PACKAGE.parent / "ARCHITECTURE.md"
RANK = {name: rank for rank, (_, names) in enumerate(LAYERS) for name in names}
LATER = re.compile(r"(?P<module>aioretryq(\.\w+)*):\w+")
MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rank(module: str) -> int:
    """Of the longest entry of the table that the module is, or is inside of."""
    while module not in RANK:
        assert module, "every module belongs to a layer: add it to the table"
        module = module.rpartition(".")[0]
    return RANK[module]


def known(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imports(tree: ast.AST) -> set[str]:
    """Modules of the package that are imported, in whatever way; `from x import y` may name module x.y.

    So is what stands as text for later: `Lazy("aioretryq.x")`, and `aioretryq.x:y` in a table.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Lazy":
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [match["module"] for match in [LATER.fullmatch(node.value)] if match is not None]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "aioretryq":
                inner = name.removeprefix("aioretryq").lstrip(".")
                found.add(inner if known(inner) else inner.rpartition(".")[0])
    return found


def runtime_tree(path: Path) -> ast.Module:
    """Without `if TYPE_CHECKING:` blocks: names that only a type checker sees are no dependency."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
    ]
    return tree


@pytest.mark.parametrize("path", MODULES, ids=lambda path: module_name(path) or "aioretryq")
def test_imports_go_down_only(path: Path) -> None:
    module = module_name(path)
    upward = {name for name in imports(runtime_tree(path)) if rank(name) > rank(module)}
    assert not upward, f"{module} is in layer {LAYERS[rank(module)][0]!r} and imports {sorted(upward)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: module_name(path) or "aioretryq")
def test_modules_are_small_and_import_at_the_top(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, "about 400 lines is where a file has become two things"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inner, f"{node.name} imports inside the function"
            length = (node.end_lineno or 0) - node.lineno - (ast.get_docstring(node) or "").count("\n")
            assert length <= 55, f"{node.name} has {length} lines"


def test_the_document_names_the_same_modules() -> None:
    rows = re.findall(r"^\| (\w+) \| (`[^|]+`[^|]*) \|", DOCUMENT.read_text().partition("## Layers")[2], re.MULTILINE)
    told = {layer: set(" ".join(re.findall(r"`([^`]+)`", cell)).split()) for layer, cell in rows}
    assert told == {layer: {document_name(name) for name in names} for layer, names in LAYERS}


def document_name(module: str) -> str:
    path = PACKAGE.joinpath(*module.split("."))
    return module.replace(".", "/") + ("/" if path.is_dir() else "") if module else "__init__"


def test_every_file_that_the_document_names_exists() -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", DOCUMENT.read_text()))
    assert len(named) > 30
    assert not {name for name in named if not any(root.joinpath(name).exists() for root in (PACKAGE, PACKAGE.parent))}


def test_every_public_name_exists_and_is_listed_in_order() -> None:
    assert aioretryq.__all__ == sorted(aioretryq.__all__)
    for name in aioretryq.__all__:
        assert hasattr(aioretryq, name)


def test_adapters_do_not_know_the_application() -> None:
    for path in MODULES:
        if module_name(path).startswith(("brokers.", "backends.", "drivers.")):
            assert not {name for name in imports(ast.parse(path.read_text())) if name in ("app", "task", "worker")}


def test_workers_do_not_know_the_canvas() -> None:
    """After compilation there is only what follows from each message."""
    for path in MODULES:
        module = module_name(path)
        if rank(module) == RANK["worker"] or module.startswith("workflows"):
            assert not {
                name for name in imports(ast.parse(path.read_text())) if name.startswith(("canvas", "drawing"))
            }, module
