"""The demo: a search engine over the Python standard library of the running interpreter.

Queries are the first lines of docstrings, documents the code without them: text that every machine has.
"""

import sysconfig
from collections.abc import Callable
from pathlib import Path

from tamis import pipeline
from tamis.recipe import Recipe

EXAMPLES = ("parse a date from a string", "count how often each element occurs", "run a command and capture its output")
EXCLUDE = (
    "site-packages/*",
    "dist-packages/*",
    "test/*",
    "*/test/*",
    "*/tests/*",
    "idlelib/*",
    "lib2to3/tests/*",
    "turtledemo/*",
    "pydoc_data/*",
    "encodings/*",
)


def run(out: Path, *, seed: int, progress: Callable[[str, int, int | None], None] | None = None) -> pipeline.Built:
    """Build the demo engine into ``out``; a minute or two on 2 cores."""
    recipe = Recipe(seed=seed).replace(ingestion={"exclude": list(EXCLUDE), "max_reject_frac": 0.05})
    return pipeline.build([sysconfig.get_paths()["stdlib"]], out, recipe, progress=progress)
