"""The documents keep their word: examples run, named files exist, every method says where it comes from."""

import ast
import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tamis"
ROOMS = ("ingestion", "selection", "synthesis", "training", "compression", "search", "evaluation")
README = ROOT / "README.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def blocks(language):
    """Code blocks of README.md in one language, in order."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    fenced = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as the README supposes it: docs/, an engine built from it, queries and judgements."""
    from tamis import pipeline

    folder = tmp_path_factory.mktemp("readme")
    (folder / "docs").mkdir()
    for number, (verb, noun) in enumerate(
        (v, n) for v in ("rotate", "renew", "revoke") for n in ("keys", "tokens", "passwords")
    ):
        text = f"# How to {verb} {noun}\n\nTo {verb} {noun}, open page {number} of the console and wait for the mail.\n"
        (folder / "docs" / f"{number}.md").write_text(text)
    for name, title in (("keys", "How do I rotate keys"), ("prices", "What is the pricing")):
        (folder / "docs" / f"{name}.md").write_text(f"# {title}\n\nThe page about {name} says it in a few words.\n")
    pipeline.build(str(folder / "docs"), folder / "engine", ROOT / "recipes" / "tiny.toml")
    shutil.copy(folder / "engine" / "collection" / "queries.jsonl", folder / "queries.jsonl")
    for name in ("qrels.tsv", "test.tsv"):
        shutil.copy(folder / "engine" / "collection" / "qrels" / "dev.tsv", folder / name)
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    return folder


def test_the_examples_of_the_readme_run(place, monkeypatch, capsys):
    examples = blocks("python")
    if not examples:
        pytest.skip("README.md has no python example")
    monkeypatch.chdir(place)
    names = {"__name__": "__main__"}
    for number, example in enumerate(examples):
        exec(compile(example, f"README.md, python example {number + 1}", "exec"), names)
    assert "Traceback" not in capsys.readouterr().err


def test_the_commands_of_the_readme_exist():
    from typer.main import get_command

    from tamis.cli import app

    known = get_command(app).commands
    for block in [*blocks("sh"), *blocks("bash"), *blocks("console"), *blocks("")]:
        for line in block.splitlines():
            words = line.removeprefix("$ ").split("#")[0].split()
            if words[:1] != ["tamis"] or len(words) < 2 or words[1].startswith("-"):
                continue
            assert words[1] in known, line
            options = {o for parameter in known[words[1]].params for o in parameter.opts}
            for word in words[2:]:
                assert not re.match(r"--?[a-z]", word) or word.split("=")[0] in options | {"--help"}, line


def test_links_within_the_documents_lead_somewhere():
    for page in [README, *ROOT.glob("docs/**/*.md"), ROOT / "CONTRIBUTING.md"]:
        if not page.exists():
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:|#", target):
                continue
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def method_files():
    """Files of the rooms that define a method: a class with the field ``method``."""
    found = []
    for room in ROOMS:
        for path in sorted((SOURCE / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = [
                node.name
                for node in tree.body
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
                and "ABC" not in {getattr(base, "id", "") for base in node.bases}
                and any(isinstance(x, ast.AnnAssign) and getattr(x.target, "id", "") == "method" for x in node.body)
            ]  # fmt: skip
            if names:
                found.append(pytest.param(path, names, tree, id=path.relative_to(SOURCE).as_posix()))
    return found


def test_there_are_methods():
    assert len(method_files()) >= 15


@pytest.mark.parametrize(("path", "names", "tree"), method_files())
def test_every_method_says_where_it_comes_from(path, names, tree):
    lines = (ast.get_docstring(tree) or "").splitlines()
    assert (lines and lines[0].endswith((".", ";", ",", ":"))) or len(lines) > 1, f"{path}: no line of meaning"
    assert any(line.startswith("Source: ") and len(line) > 12 for line in lines), f"{path}: no Source: line"


@pytest.mark.parametrize(("path", "names", "tree"), method_files())
def test_every_method_is_tested(path, names, tree):
    room = path.relative_to(SOURCE).parts[0]
    tests = [p for p in (ROOT / "tests").rglob("test_*.py") if p.parent.name in {room, "reference", "contract"}]
    if not (ROOT / "tests" / room).is_dir():
        pytest.skip(f"no tests of {room} yet")
    text = "\n".join(p.read_text(encoding="utf-8") for p in tests)
    missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
    assert not missing, f"{path.relative_to(SOURCE)}: {', '.join(missing)} named in no test of {room}"


def test_every_row_of_papers_points_at_files():
    rows = [
        line for line in (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ][1:]
    assert len(rows) >= 10
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        named = re.findall(r"`([^`]+)`", cells[-1])
        assert named, f"no file: {row}"
        for name in named:
            assert (SOURCE / name).is_file(), f"docs/papers.md: {name}: no such file under src/tamis"


@pytest.mark.parametrize(("path", "names", "tree"), method_files())
def test_every_method_has_a_row_in_papers(path, names, tree):
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    source = next(line for line in ast.get_docstring(tree).splitlines() if line.startswith("Source: "))
    if source.startswith("Source: tamis"):
        pytest.skip("not from a paper")
    assert f"`{path.relative_to(SOURCE).as_posix()}`" in text


def test_decisions_are_numbered_without_gaps_and_say_context_choice_price():
    assert [int(p.name[:4]) for p in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for path in DECISIONS:
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name)
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. ")
        for part in ("**Context.**", "**Choice.**", "**Price.**"):
            assert part in text, f"{path.name}: {part}"


def test_no_document_of_the_repository_names_a_place_of_its_makers():
    home = os.path.expanduser("~")  # noqa: PTH111 - a text to look for
    for path in [README, *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.toml")]:
        if path.exists():
            text = path.read_text(encoding="utf-8")
            assert str(ROOT) not in text and (len(home) < 3 or f"{home}/" not in text), path
