"""No module uses a private name of another: what two of them need is public, or belongs elsewhere."""

import ast
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src" / "tamis"
PUBLIC_ALL_THE_SAME = {"os._exit", "_replace", "_asdict", "_fields"}
"""The documented way to end a process at once, and the methods of named tuples."""


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def own_names(tree):
    """Names that a module defines: functions, classes, variables, attributes of its own objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            yield node.attr


def is_own(value):
    """Whether an object is the one whose method this is: what a base class gives to its subclasses is theirs."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def strangers(source):
    """Return the private names of others that a module imports or reaches into, with their lines."""
    tree = ast.parse(source)
    own, found = set(own_names(tree)), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            found += [(node.lineno, alias.name) for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            used = {ast.unparse(node), node.attr}
            found += [(node.lineno, ast.unparse(node))] * (not used & (PUBLIC_ALL_THE_SAME | own))
    return found


def test_no_module_uses_a_private_name_of_another():
    files = sorted(SRC.rglob("*.py"))
    assert len(files) > 100
    found = {str(path.relative_to(SRC)): strangers(path.read_text(encoding="utf-8")) for path in files}
    assert {name: names for name, names in found.items() if names} == {}


def test_what_counts_as_a_private_name_of_another():
    assert strangers("from tamis.ops.bytes import text_buffers, _tables\n") == [(1, "_tables")]
    assert strangers("from tamis.ingestion import readers\nreaders._sniff(1)\n") == [(2, "readers._sniff")]
    assert strangers("from __future__ import annotations\nimport os\nos._exit(0)\n") == []
    assert (
        strangers("def _mine(): ...\nclass A:\n    def f(self, other):\n        return self._x, super()._y, _mine\n")
        == []
    )
    own = "class A:\n    def __init__(self):\n        self._x = 1\n    def f(self, other):\n        return other._x\n"
    assert strangers(own) == []
    assert strangers("def f(corpus):\n    return corpus._table\n") == [(2, "corpus._table")]
