"""Recipes: every file loads, the tiny one runs end to end, all problems are told at once."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tamis
from tamis.errors import RecipeError
from tamis.recipe import Recipe

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
FILES = sorted(FOLDER.rglob("*.toml"))


def test_there_are_recipes():
    assert {"default.toml", "tiny.toml"} <= {f.name for f in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_recipe_loads(path):
    assert isinstance(Recipe.load(path), Recipe)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_recipe_survives_a_round_trip(path, tmp_path):
    recipe = Recipe.load(path)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.load(copy) == recipe
    assert Recipe.load(copy).to_toml() == recipe.to_toml()


@settings(max_examples=30)
@given(
    st.integers(0, 2**63 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
)
@example(0, "\x7f\n\\\"'#", ["\t*"])
def test_any_text_survives_a_round_trip(seed, encoder, exclude):
    recipe = Recipe(seed=seed, encoder=encoder).replace(ingestion={"exclude": exclude})
    assert Recipe.from_toml(recipe.to_toml(), "copy") == recipe


def test_what_is_not_set_survives_a_round_trip_too():
    recipe = Recipe().replace(scratch={"stemmer": None, "stopwords": None})
    assert 'stemmer = "none"' in recipe.to_toml()
    assert Recipe.from_toml(recipe.to_toml(), "copy") == recipe
    assert Recipe().scratch.stemmer == "english"


def test_default_is_the_defaults_written_out():
    assert Recipe.load(FOLDER / "default.toml") == Recipe()
    written = tomllib.loads((FOLDER / "default.toml").read_text(encoding="utf-8"))
    assert written == tomllib.loads(Recipe().to_toml()), "a default was added or changed: write it out in default.toml"


def test_default_says_what_each_setting_is():
    for line in (FOLDER / "default.toml").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith(("#", "method =")):
            assert "  # " in line, line


def test_all_problems_at_once_with_their_key_paths(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        "seed = -1\ncolour = 1\n[ingestion]\nmax_reject_frac = 1.5\n[scratch]\ndim = 'many'\n[search]\nmagic = true\n"
    )
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 5 problem(s)"
    assert {line.split(":")[0].strip() for line in lines[1:]} == {
        "seed", "colour", "ingestion.max_reject_frac", "scratch.dim", "search.magic",
    }  # fmt: skip
    assert "(got 1.5)" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("seed =", "not TOML"), ("\xff", "not TOML"), ("seed = 1\nseed = 2", "not TOML"), ("at = 2020-01-01", "at")],
)
def test_what_is_no_recipe_is_refused(tmp_path, text, words):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        Recipe.load(path)
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.load(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.load(tmp_path / "binary.toml")


def test_the_tiny_recipe_runs_end_to_end(tmp_path):
    rows = [
        {
            "id": f"d{n}",
            "title": f"How to {verb} the {noun}",
            "text": f"To {verb} a {noun}, open page {n} of the manual. " * 3,
        }
        for n, (verb, noun) in enumerate(
            (v, o) for v in ("mend", "paint", "oil", "lift") for o in ("gate", "pump", "belt", "door")
        )
    ]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    built = tamis.build(str(tmp_path / "docs.jsonl"), tmp_path / "engine", FOLDER / "tiny.toml")
    assert built.seconds < 60
    assert tamis.open(tmp_path / "engine").search("oil the pump", k=3)[0].title == "How to oil the pump"
    assert Recipe.load(tmp_path / "engine" / "recipe.toml") == Recipe.load(FOLDER / "tiny.toml")
