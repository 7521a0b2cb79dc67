"""The map of the house, checked: who may import whom, and how large a room may get."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "metaql"
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = (
    ("errors",),
    ("types",),
    ("files", "leaves"),
    ("checkpoint", "config", "runs"),
    ("tasks",),
    ("qlearning",),
    ("embedding",),
    ("policy",),
    ("meta",),
    ("evaluation",),
    ("cli",),
    ("__main__",),
)
"""Lowest first: a module imports its own part or one further up in this list, never one below."""
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

MAX_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 7
MAX_FUNCTION_DEPTH = 2

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    """Dotted name of a source file: ``metaql.tasks`` for ``tasks/__init__.py``."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
PACKAGES = {module_name(path) for path in FILES if path.name == "__init__.py"}


def imported(node: ast.stmt, module: str) -> list[str]:
    """Modules of metaql that one import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = source_of(node, module)
        names = [child if (child := f"{base}.{a.name}") in MODULES else base for a in node.names]
    else:
        names = []
    return [name for name in names if name.split(".")[0] == "metaql"]


def source_of(node: ast.ImportFrom, module: str) -> str:
    """The absolute module after ``from``, dots resolved."""
    if not node.level:
        return node.module or ""
    climb = node.level - (module in PACKAGES)
    base = module.split(".")[: len(module.split(".")) - climb]
    return ".".join([*base, *([node.module] if node.module else [])])


def imports(module: str, tree: ast.Module) -> set[str]:
    """Every module of metaql imported anywhere in ``module``: at its top, lazily or for types."""
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return {name for node in statements for name in imported(node, module)} - {module}


def part_of(module: str) -> str:
    """The part of the house a module is in: ``tasks`` for ``metaql.tasks.exact``."""
    return module.split(".")[1] if "." in module else ""


def wrong_way(module: str, names: set[str]) -> list[str]:
    """Imports of ``module`` that go against the order of the layers."""
    here = part_of(module)
    others = {part_of(name) for name in names} - {here, ""}
    return sorted(part for part in others if RANK[part] >= RANK[here])


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One import cycle, or nothing: what is left when modules without open imports are removed."""
    rest = dict(graph)
    while True:
        free = [name for name, names in rest.items() if not names & rest.keys()]
        if not free:
            return sorted(rest)
        for name in free:
            del rest[name]


def functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def code_lines(node: Function) -> int:
    """Lines of a function without its docstring."""
    end = node.end_lineno or node.lineno
    has_doc = ast.get_docstring(node) is not None
    documented = (node.body[0].end_lineno or 0) - node.body[0].lineno + 1 if has_doc else 0
    return end - node.lineno + 1 - documented


def depth(node: ast.AST) -> int:
    """How deep functions stand inside functions below ``node``: 0 for a plain one."""
    children = [(child, isinstance(child, Function)) for child in ast.iter_child_nodes(node)]
    return max((depth(child) + is_function for child, is_function in children), default=0)


def forbidden(tree: ast.Module) -> list[str]:
    """What has no place in the library: each as ``line: what``."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found.append(f"{node.lineno}: assert (raise an error of errors.py)")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            unsafe = {"pickle", "cloudpickle", "dill", "marshal", "yaml"}
            found += [f"{node.lineno}: import {name}" for name in names if name in unsafe]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [f"{node.lineno}: {name}"] if name in {"eval", "exec"} else []
        elif isinstance(node, ast.Attribute) and ast.unparse(node).endswith("random.PRNGKey"):
            found.append(f"{node.lineno}: PRNGKey (typed keys: jax.random.key)")
    return found


def test_every_part_has_a_place_in_the_order():
    parts = {part_of(module) for module in MODULES} - {""}
    assert parts <= RANK.keys(), f"add to LAYERS: {sorted(parts - RANK.keys())}"


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_imports_go_one_way(module: str):
    wrong = wrong_way(module, imports(module, MODULES[module]))
    assert not wrong, f"{module} imports {wrong}, which stand above or beside it"


def test_no_import_cycle():
    # The root only looks names up when they are first used, so it is no part of a cycle.
    graph = {name: imports(name, tree) - {"metaql"} for name, tree in MODULES.items()}
    assert find_cycle(graph) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_size_and_safety(path: Path):
    text = path.read_text(encoding="utf-8")
    tree = MODULES[module_name(path)]
    assert text.count("\n") <= MAX_LINES
    assert forbidden(tree) == []
    for function in functions(tree):
        where = f"{path.name}:{function.lineno} {function.name}"
        arguments = function.args.posonlyargs + function.args.args
        own = [argument for argument in arguments if argument.arg not in ("self", "cls")]
        assert code_lines(function) <= MAX_FUNCTION_LINES, where
        assert len(own) <= MAX_POSITIONAL, where
        assert depth(function) <= MAX_FUNCTION_DEPTH, where


UNDOCUMENTED = {"", "cli", "__main__"}
"""Parts whose documentation is their ``--help``."""


def test_every_public_module_is_in_the_reference():
    pages = (SOURCE.parent.parent / "docs" / "reference").glob("*.md")
    shown = {line[4:] for page in pages for line in page.read_text().splitlines() if "::: " in line}
    wanted = {name for name in MODULES if part_of(name) not in UNDOCUMENTED} - PACKAGES
    assert sorted(wanted - shown) == [], "add a `::: module` line to a page of docs/reference"
    assert sorted(shown - wanted) == [], "no such module"


# The checks themselves, on text that breaks the rule.


def test_wrong_way_is_noticed():
    tree = ast.parse("def f():\n    from metaql.meta.lifetime import live\n")
    assert wrong_way("metaql.tasks.finite", imports("metaql.tasks.finite", tree)) == ["meta"]
    assert wrong_way("metaql.cli.main", imports("metaql.cli.main", tree)) == []


def test_relative_imports_are_resolved():
    tree = ast.parse("from ..meta import lifetime\nfrom . import base\n")
    names = imports("metaql.tasks.finite", tree)
    assert "meta" in wrong_way("metaql.tasks.finite", names)
    assert all(name.startswith("metaql.") for name in names)


def test_cycle_is_noticed():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    "text",
    [
        "assert x > 0",
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "jax.random.PRNGKey(0)",
    ],
)
def test_forbidden_is_noticed(text: str):
    assert len(forbidden(ast.parse(text))) == 1


def test_sizes_are_measured():
    tree = ast.parse(
        'def f():\n    """Doc.\n\n    More.\n    """\n    def g():\n        return 1\n'
    )
    assert [code_lines(node) for node in functions(tree)] == [3, 2]
    assert depth(functions(tree)[0]) == 1
