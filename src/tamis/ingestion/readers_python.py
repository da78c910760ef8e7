"""Python reader: one document a function, method and class, and one for the rest of the module; docstrings apart.

Source: tamis design; the standard ast module, nothing is executed.
"""

import ast
import posixpath
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TypeAlias

from tamis.ingestion.records import Record, Reject, clip, encode_metadata

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def module_name(label: str) -> str:
    """Return the dotted name of a file: ``email/mime/text.py`` -> ``email.mime.text``."""
    path = label.removesuffix(".gz").removesuffix(".zst").removesuffix(".py")
    parts = [p for p in path.split("/") if p not in ("", ".", "..", "src")]
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts) or posixpath.basename(label)


def read_python(text: str, label: str) -> Iterator[Record | Reject]:
    """Cut a module into documents; O(characters).

    A function or method is its code with decorators, without its docstring; nested functions belong to
    it. A class is its own statements and the headers of its methods; a module likewise. ids:
    ``label:qualified.name`` (``~2`` for a second definition of one name), the module's is its label.
    Metadata: kind, lineno, docstring.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # doubtful escapes are the file's business
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        yield Reject(line, 0, "syntax_error", clip(str(error) or type(error).__name__))
        return
    module = _Module(text)
    name = module_name(label)
    yield module.document(tree, label, name, 1, _outline(tree))
    seen: Counter[str] = Counter()
    for node, qualified in _definitions(tree):
        seen[qualified] += 1
        doc_id = f"{label}:{qualified}" + (f"~{seen[qualified]}" if seen[qualified] > 1 else "")
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        if len(doc_id.encode()) > 512:
            yield Reject(first, module.line_starts[first - 1], "bad_id", "the qualified name is longer than 512 bytes")
            continue
        outline = _outline(node) if isinstance(node, ast.ClassDef) else []
        yield module.document(node, doc_id, f"{name}.{qualified}", first, outline)


def _definitions(tree: ast.Module) -> Iterator[tuple[Definition, str]]:
    """Yield functions, methods and classes in order; those inside functions belong to the function."""
    pending: list[tuple[ast.AST, str]] = [(child, "") for child in reversed(list(ast.iter_child_nodes(tree)))]
    while pending:
        node, prefix = pending.pop()
        if isinstance(node, _DEFINITIONS):
            yield node, prefix + node.name
            if not isinstance(node, ast.ClassDef):
                continue
            prefix = f"{prefix}{node.name}."
        elif not isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            continue
        pending += [(child, prefix) for child in reversed(list(ast.iter_child_nodes(node)))]


def _outline(parent: ast.AST) -> list[Definition]:
    """Return the definitions nearest below ``parent``: of these only the headers belong to it."""
    found: list[Definition] = []
    pending = list(ast.iter_child_nodes(parent))
    while pending:
        node = pending.pop()
        if isinstance(node, _DEFINITIONS):
            found.append(node)
        elif isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            pending += list(ast.iter_child_nodes(node))
    return found


class _Module:
    """A module's source in bytes, as the offsets of ast count."""

    def __init__(self, text: str) -> None:
        self._data = text.encode()
        self.line_starts = [0]
        start = self._data.find(b"\n")
        while start >= 0:
            self.line_starts.append(start + 1)
            start = self._data.find(b"\n", start + 1)
        self.line_starts.append(len(self._data))

    def document(self, node: ast.AST, doc_id: str, title: str, first: int, outline: list[Definition]) -> Record:
        """Make the document of a definition or of the module (``first``: its first line, from 1)."""
        start = self.line_starts[first - 1]
        stop = len(self._data) if isinstance(node, ast.Module) else self._offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        removed = [self._body_span(child) for child in outline]
        docstring = ""
        statement = _docstring(node)
        if statement is not None:
            docstring = ast.get_docstring(node, clean=True) or ""  # type: ignore[arg-type]
            removed.append(self._statement_span(statement))
        code = self._without(start, stop, removed)
        kind = {ast.Module: "module", ast.ClassDef: "class"}.get(
            type(node), "method" if "." in doc_id.rpartition(":")[2] else "function"
        )
        metadata: dict[str, object] = {"kind": kind, "lineno": first}
        if docstring:
            metadata["docstring"] = docstring.encode("utf-8", "replace").decode()
        return Record(doc_id, clip(title), textwrap.dedent(code).strip("\n"), encode_metadata(metadata), first, start)

    def _offset(self, line: int, column: int) -> int:
        return self.line_starts[line - 1] + column

    def _body_span(self, node: Definition) -> tuple[int, int]:
        """Span from the end of a header to the end of its body."""
        body = node.body[0]
        decorators = getattr(body, "decorator_list", [])
        line = min([body.lineno, *(d.lineno for d in decorators)])
        start = self.line_starts[line - 1]
        if line <= node.lineno or self._data[start : self._offset(body.lineno, body.col_offset)].strip():
            start = self._offset(body.lineno, body.col_offset)
        stop = self._offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
        return self._whole_lines(start, stop)

    def _statement_span(self, node: ast.stmt) -> tuple[int, int]:
        start = self._offset(node.lineno, node.col_offset)
        stop = self._offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
        return self._whole_lines(start, stop)

    def _whole_lines(self, start: int, stop: int) -> tuple[int, int]:
        """Widen a span to whole lines when nothing else stands on them."""
        line_start = self._data.rfind(b"\n", 0, start) + 1
        line_stop = self._data.find(b"\n", stop)
        line_stop = len(self._data) if line_stop < 0 else line_stop + 1
        if not self._data[line_start:start].strip() and not self._data[stop:line_stop].strip():
            return line_start, line_stop
        return start, stop

    def _without(self, start: int, stop: int, removed: list[tuple[int, int]]) -> str:
        pieces, position = [], start
        for first, last in sorted(removed):
            if first >= position:
                pieces.append(self._data[position : min(first, stop)])
                position = last
        pieces.append(self._data[position:stop])
        return b"".join(pieces).decode("utf-8", "replace")


def _docstring(node: ast.AST) -> ast.stmt | None:
    body = getattr(node, "body", None)
    if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
        return None
    value = body[0].value
    return body[0] if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
