"""docs/evidence.md: each benchmark owns one section between markers and writes it anew."""

import re
from pathlib import Path

EVIDENCE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"


def write_section(name: str, markdown: str, path: Path = EVIDENCE) -> None:
    """Replace (or append) the section ``name`` of docs/evidence.md, or of another file."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    block = f"{begin}\n{markdown.strip()}\n{end}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end) + "\n", re.DOTALL)
    text = pattern.sub(lambda _: block, text) if pattern.search(text) else text.rstrip() + "\n\n" + block
    path.write_text(text, encoding="utf-8")


HEAD = """# Evidence

Every figure here was printed by a script of `benchmarks/` (`make bench` runs them all). Controls stand in the same
table; losses stand like wins. Intervals are 95 % percentile bootstraps over queries; p-values are paired sign-flip
randomisation tests, adjusted by Holm within a set.
"""
