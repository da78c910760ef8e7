"""Recipe: every setting of every stage, typed; read from TOML, written out resolved."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from tamis.data.settings import Settings
from tamis.errors import RecipeError
from tamis.ingestion.chunking import Passages
from tamis.ingestion.ingest import Ingest
from tamis.search.fit import Fit
from tamis.synthesis.make import Synthesize
from tamis.training.pretrain.static_svd import StaticSVD

NONE = "none"
"""How a recipe file writes a setting of a table that is not set."""


class Recipe(Settings):
    """What `build` does, stage by stage. A TOML table is a method's constructor: same keys, defaults and checks.

    Attributes:
      seed: of every random choice; the same seed gives the same bytes.
      encoder: "scratch" for the encoder made from the corpus alone, else a folder or (with network allowed) a hub id.
      ingestion: files to documents.
      passages: how long documents are split.
      synthesis: pseudo-queries for training and for the held-out dev set.
      scratch: the encoder made from the corpus alone.
      search: what is tried on the dev queries and kept where it helps.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    encoder: Annotated[str, Field(min_length=1)] = "scratch"
    ingestion: Ingest = Ingest()
    passages: Passages = Passages()
    synthesis: Synthesize = Synthesize()
    scratch: StaticSVD = StaticSVD()
    search: Fit = Fit()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a TOML recipe; keys it leaves out have their defaults.

        Raises:
          RecipeError: unreadable, no TOML, or settings refused; all problems at once.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {error}. Give a TOML file.") from error
        return cls.from_toml(text, str(path))

    @classmethod
    def from_toml(cls, text: str, where: str) -> Self:
        """Read a recipe's text; ``where`` names it in errors.

        Raises:
          RecipeError: no TOML, or settings refused; all problems at once.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{where}: not TOML: {error}.") from error
        for table in values.values():
            if isinstance(table, dict):  # TOML has no null
                table.update({key: None for key, value in table.items() if value == NONE})
        return cls.from_json(json.dumps(values, default=str), where)

    def replace(self, **values: Any) -> Self:  # noqa: ANN401 - any setting
        """Return the recipe with some top-level settings replaced and checked again."""
        return type(self).from_json(json.dumps({**self.model_dump(mode="json"), **values}), "recipe")

    def to_toml(self) -> str:
        """Return the resolved recipe as TOML, every default written out; what is not set is "none"."""
        lines: list[str] = []
        _write_table(lines, "", self.model_dump(mode="json"))
        return "\n".join(lines) + "\n"


def _write_table(lines: list[str], path: str, table: dict[str, Any]) -> None:
    if path:
        lines += ["", f"[{path}]"]
    for key, value in table.items():
        if not isinstance(value, dict):
            text = json.dumps(NONE if value is None else value, ensure_ascii=False).replace(
                "\x7f", "\\u007f"
            )  # which TOML wants escaped
            lines.append(f"{key} = {text}")
    for key, value in table.items():
        if isinstance(value, dict):
            _write_table(lines, f"{path}.{key}" if path else key, value)
