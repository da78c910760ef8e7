"""Recipe: every setting of every stage, typed; read from TOML, written out resolved."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tamis.data.settings import Settings
from tamis.errors import RecipeError, UsageError
from tamis.ingestion.chunking import Passages
from tamis.ingestion.ingest import Ingest
from tamis.search.fit import Fit
from tamis.synthesis.make import Synthesize
from tamis.training.pretrain.static_svd import StaticSVD

NONE = "none"
"""How a recipe file writes a setting of a table that is not set."""


class Select(Settings):
    """What is learned from: queries are made of these documents and the encoder is trained on them.

    The index holds every document all the same. Exact copies share the fate of the one that stands for them.

    Attributes:
      near_copies: of verified near copies (`tamis.ingestion.minhash.MinHash`) the longest alone is learned from.
      min_same_words_frac: share of same words that makes a near copy.
      quality: preset of quality rules (`tamis.ingestion.quality.Quality`); what fails them is not learned from.
      targets: files with documents of the kind that will be asked for; with a budget.
      by: how nearness to the targets is scored, a name of `tamis.selection.names`.
      budget: how much is learned from, as 20%, 10000docs, 2Mwords or 100MB; None for everything. Without targets
        it is drawn uniformly.
    """

    method: Literal["select"] = "select"
    near_copies: bool = True
    min_same_words_frac: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    quality: Literal["off", "documents", "web", "code"] = "off"
    targets: tuple[str, ...] = ()
    by: Literal[
        "dsir", "dsir-paper", "uniform", "nearest", "classifier", "compression", "zip-fit", "perplexity"
    ] = "dsir"  # fmt: skip
    budget: str | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.budget is not None:
            from tamis.selection.budget import Budget

            try:
                Budget.parse(self.budget)
            except UsageError as error:
                raise ValueError(str(error)) from None
        if self.targets and self.budget is None:
            raise ValueError("targets without a budget choose nothing: set budget too, say 20%")
        return self


class Recipe(Settings):
    """What `build` does, stage by stage. A TOML table is a method's constructor: same keys, defaults and checks.

    Attributes:
      seed: of every random choice; the same seed gives the same bytes.
      encoder: "scratch" for the encoder made from the corpus alone, else a folder or (with network allowed) a hub id.
      ingestion: files to documents.
      select: which documents are learned from.
      passages: how long documents are split.
      synthesis: pseudo-queries for training and for the held-out dev set.
      scratch: the encoder made from the corpus alone.
      search: what is tried on the dev queries and kept where it helps.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    encoder: Annotated[str, Field(min_length=1)] = "scratch"
    ingestion: Ingest = Ingest()
    select: Select = Select()
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
