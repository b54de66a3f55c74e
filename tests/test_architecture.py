"""The import law (design.md 2): who may know whom, read from the sources themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bot", "adapters", "storage")
SHARED = {"bot.contract", "bot.errors", "bot.texts"}
JOINERS = {"bot/app.py", "bot/cli.py", "bot/cli_ask.py", "bot/cli_db.py", "bot/demo.py"}
JOINERS |= {"bot/__main__.py"}
VENDORS = {
    "lark_oapi": "adapters/feishu/",
    "dingtalk_stream": "adapters/dingtalk/",
    "sqlalchemy": "storage/",
    "aiohttp": "adapters/",
}
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Full names of what a file imports; `from a import b` gives a.b where that is a
    module of ours, else a."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.iter_child_nodes(tree) if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in MODULES else module


def within(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=within)
def test_the_import_law(path: Path) -> None:
    here = within(path)
    for name in imports(path):
        top = name.partition(".")[0]
        if top in VENDORS:
            assert here.startswith(VENDORS[top]), f"{here} imports {name}"
        if top not in PACKAGES:
            continue
        if here.startswith("bot/"):
            assert top == "bot" or here in JOINERS, f"{here} imports {name}"
        elif top == "bot":
            shared = any(name == s or name.startswith(f"{s}.") for s in SHARED)
            assert shared, f"{here} imports {name}"
        else:
            assert may_know(here, name), f"{here} imports {name}"


def may_know(here: str, name: str) -> bool:
    """A folder under adapters knows itself and the files at the root of adapters; the
    files at that root know each other; storage knows itself."""
    folder = here.split("/")
    if folder[0] == "storage":
        return name.startswith("storage")
    if not name.startswith("adapters"):
        return False
    parts = name.split(".")
    at_root = len(parts) == 2 and not (ROOT / "adapters" / parts[1]).is_dir()
    return at_root or (len(folder) > 2 and parts[1:2] == [folder[1]])


def test_no_import_cycles() -> None:
    graph = {
        name: {found for found in imports(path, top_only=True) if found in MODULES} - {name}
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for found in graph[name]:
            walk(found, (*trail, name))
        done.add(name)

    for name in graph:
        walk(name, ())


def test_vendor_sdks_load_on_demand_only() -> None:
    for path in FILES:
        for name in imports(path, top_only=True):
            assert name.partition(".")[0] not in ("lark_oapi", "dingtalk_stream"), within(path)


def test_imports_stand_at_the_top() -> None:
    """Only joiners, the loaders of an SDK and a platform's transport import inside."""
    allowed = JOINERS | {"adapters/feishu/sdk_link.py", "adapters/dingtalk/sdk_link.py"}
    allowed |= {"adapters/feishu/chat.py", "adapters/dingtalk/chat.py"}
    for path in FILES:
        inside = set(imports(path)) - set(imports(path, top_only=True))
        hidden = {name for name in inside if not under_type_checking(path, name)}
        assert not hidden or within(path) in allowed, f"{within(path)} hides {hidden}"


def under_type_checking(path: Path, name: str) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.If)
        and "TYPE_CHECKING" in ast.dump(node.test)
        and name in ast.dump(node)
        for node in tree.body
    )


def test_files_have_one_subject() -> None:
    """Few files over 350 lines; none over 600 but the vocabulary."""
    sizes = {within(p): len(p.read_text(encoding="utf-8").splitlines()) for p in FILES}
    big = {name: size for name, size in sizes.items() if size > 350}
    assert len(big) <= 6, big
    assert all(size <= 650 for size in big.values()), big


def test_functions_are_short() -> None:
    lengths = [
        (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths.sort()
    assert lengths[len(lengths) // 2] <= 10
    assert sum(length > 40 for length in lengths) <= len(lengths) // 100 + 1
