"""The frozen list of public names: a change here is a change for everybody who imports tamis."""

import inspect
import subprocess
import sys

import pytest

import tamis
from tamis import errors

NAMES = (
    "ArtefactError", "BM25", "Budget", "Built", "CompressionAlignment", "Conditioned", "Convex", "Corpus", "Curated",
    "DSIR", "DataError", "Decontaminate", "Dense", "Engine", "FrequentLines", "HashedClassifier", "Hit", "Judge",
    "KLProposal", "Ledger", "LogLinear", "MinHash", "Mixture", "NgramPerplexity", "Qrels", "Quality", "Queries",
    "Recipe", "RecipeError", "ReciprocalRank", "ResourceError", "Run", "StaticSVD", "Swarm", "TamisError",
    "TfidfNearest", "Uniform", "__version__", "audit", "build", "clean", "compare", "decontaminate", "dedup",
    "evaluate", "load_encoder", "open", "select",
)  # fmt: skip
TREE = {
    "TamisError": (Exception, 1),
    "UsageError": (errors.TamisError, 2),
    "RecipeError": (errors.UsageError, 2),
    "MissingExtra": (errors.UsageError, 2),
    "DataError": (errors.TamisError, 3),
    "TrainingError": (errors.TamisError, 1),
    "ArtefactError": (errors.TamisError, 1),
    "ResourceError": (errors.TamisError, 4),
    "LockedError": (errors.ResourceError, 4),
    "Interrupted": (errors.TamisError, 130),
}


def test_the_names_are_these():
    assert tuple(tamis.__all__) == tuple(sorted(NAMES))
    assert dir(tamis) == tamis.__all__


@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves_and_is_documented(name):
    found = getattr(tamis, name)
    assert name == "__version__" or inspect.getdoc(found)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = tamis.nope


@pytest.mark.parametrize("name", TREE)
def test_the_tree_of_errors_and_its_exit_codes(name):
    parent, code = TREE[name]
    found = getattr(errors, name)
    assert found.__base__ is parent and found.exit_code == code
    line = next(line for line in errors.__doc__.splitlines() if name in line.split())
    assert str(code) in line.split()


def test_the_tree_is_complete():
    assert {n for n, c in vars(errors).items() if inspect.isclass(c) and c.__module__ == errors.__name__} == set(TREE)


def test_version_is_that_of_the_package():
    from importlib import metadata

    assert tamis.__version__ == metadata.version("tamis")


def test_names_load_no_torch():
    code = "import sys, tamis; [getattr(tamis, n) for n in tamis.__all__]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
