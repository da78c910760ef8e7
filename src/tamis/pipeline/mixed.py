"""Mixed: documents by source at the weights of a mixture, under a budget.

Source: tamis design (method card C8); weights come from `mixing.mix`, or from anybody.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from tamis.data.corpus import DOCUMENT_SCHEMA
from tamis.errors import DataError
from tamis.ingestion.export import Format
from tamis.ingestion.pool import Pool
from tamis.pipeline.curation import TEXT, Curated, Curation, Decided, Source
from tamis.pipeline.mixing import MIXTURE
from tamis.pipeline.record import Progress
from tamis.selection.budget import Budget
from tamis.selection.mixture import Mixed, Mixture


def read_weights(path: Path | str) -> dict[str, float]:
    """Read the weights of mixture.json: a file, or the folder that `mix` made.

    Only the key ``weights`` is needed, so that a mixture of another tool, or one written by hand, does too.

    Raises:
      DataError: no such file, no JSON, or no numbers of 0 and more by domain.
    """
    given = Path(path)
    file = given / "report" / MIXTURE if given.is_dir() else given
    try:
        weights = orjson.loads(file.read_bytes())["weights"]
        found = {str(name): float(weight) for name, weight in weights.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{file}: no mixture ({type(error).__name__}: {error}). Give what `tamis mix` wrote, or {{"weights": '
            '{"books": 0.6, "web": 0.4}}.'
        ) from error
    if not found or not all(np.isfinite(w) and w >= 0 for w in found.values()) or sum(found.values()) <= 0:
        raise DataError(f"{file}: weights {found}. Give each domain a number of 0 or more, not all 0.")
    return found


def domain_of(label: str, domains: Sequence[str]) -> str:
    """Return the domain that a file belongs to: by its name, its name without suffixes, or a folder on its way.

    Args:
      label: path of the file below the common root of the pool.
      domains: names to choose from.

    Raises:
      DataError: none, or several.
    """
    folders, name = posixpath.split(label)
    parts = [part for part in folders.split("/") if part]
    paths = {"/".join(parts[start:stop]) for start in range(len(parts)) for stop in range(start + 1, len(parts) + 1)}
    own = {label, name, name.split(".")[0], label.split(".", maxsplit=1)[0]}
    found = [domain for domain in domains if domain in own | paths]
    if len(found) != 1:
        told = f"several domains have it: {', '.join(found)}" if found else f"none of the domains {', '.join(domains)}"
        raise DataError(
            f"source {label!r}: {told}. Give each domain a file or a folder of its name (wiki.jsonl, or wiki/ with any "
            "files); a domain with weight 0 is left out."
        )
    return found[0]


@dataclass(frozen=True)
class _ByDomain:
    """A pool as a mixture sees it: the source is the domain, and what is taken are ids, so that no text is held."""

    pool: Pool
    domains: Mapping[str, str]

    @property
    def schema(self) -> pa.Schema:
        return DOCUMENT_SCHEMA

    def __len__(self) -> int:
        return len(self.pool)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        labels, names = pa.array(list(self.domains), TEXT), pa.array(list(self.domains.values()), TEXT)
        for batch in self.pool.batches(columns):
            place = batch.schema.names.index("source")
            yield batch.set_column(place, "source", names.take(pc.index_in(batch["source"], value_set=labels)))

    def take(self, rows: np.ndarray | Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        return pa.table({"doc_id": self.pool.doc_ids.take(pa.array(np.asarray(rows)))})


def sample(
    source: Source | Sequence[str] | str,
    out: Path | str,
    weights: Mapping[str, float],
    budget: Budget,
    *,
    max_epochs: float = 1.0,
    seed: int = 0,
    format: Format = "jsonl.zst",
    workers: int = 1,
    progress: Progress | None = None,
) -> Curated:
    """Keep documents of each domain in the shares of a mixture, under a budget. One pass over the texts.

    Args:
      source: the pool; a file belongs to the domain that `domain_of` finds.
      out: folder of the result; ``report/domains.parquet`` has what each domain was to give and gave.
      weights: by domain.
      budget: of all domains together, repeats counted.
      max_epochs: how often a document may be seen. Above 1 a document is still written once, and
        ``report/copies.parquet`` says how often it is to be seen.
      seed: of the order inside domains, which is keyed by content.
      format: of the documents that are kept.
      workers: processes that read.
      progress: called as progress(stage, done, total).

    Raises:
      DataError: a file of no domain or several, a domain with weight and without a file, or domains that cannot fill
        the budget.
    """
    settings = {
        "mixture": dict(sorted(weights.items())),
        "budget": budget.model_dump(mode="json"),
        "max_epochs": max_epochs,
    }
    work = Curation(
        "select",
        source,
        out,
        settings=settings,
        seed=seed,
        format=format,
        workers=workers,
        progress=progress,
    )
    return work.run(lambda pool, _: sample_pool(pool, weights, budget, max_epochs, seed))


def sample_pool(pool: Pool, weights: Mapping[str, float], budget: Budget, max_epochs: float, seed: int) -> Decided:
    """Choose the documents of each domain; see `sample`."""
    labels = pc.unique(pa.chunked_array([batch["source"] for batch in pool.batches(["source"])], TEXT))
    domains = {label: domain_of(label, list(weights)) for label in sorted(labels.to_pylist())}
    here = set(domains.values())
    absent = [name for name, weight in weights.items() if weight > 0 and name not in here]
    if absent:
        raise DataError(
            f"domain {absent[0]!r} has weight {weights[absent[0]]:.4g} and no file among {', '.join(domains)}. Give "
            f"its files ({absent[0]}.jsonl, or a folder {absent[0]}/), or weight 0."
        )
    used = {name: weight for name, weight in weights.items() if name in here}
    view = _ByDomain(pool, domains)
    mixed = Mixture(budget=budget, weights=used, max_epochs=max_epochs).select(view, None, None, seed=seed)
    gone = pc.is_in(pool.doc_ids, value_set=mixed.dropped["doc_id"].combine_chunks())
    kept = ~np.asarray(gone)
    reasons = np.full(len(pool), "", object)
    reasons[~kept] = mixed.dropped["reason"].to_pylist()
    names = pa.concat_arrays([batch["source"] for batch in view.batches(["source"])])
    copies = pa.table({"doc_id": pool.doc_ids.filter(pa.array(kept)), "num_copies": mixed.copies[:, 0]})
    told = mixed.sources.drop_columns(["phase"]).rename_columns({"source": "domain"})
    return Decided(
        "mixture",
        kept,
        pa.array(reasons, TEXT),
        verdict="selected",
        others=names,
        tables={"domains": told} | ({"copies": copies} if max_epochs > 1 else {}),
        figures=_figures(mixed, told, budget),
        notes=tuple(_notes(mixed, max_epochs)),
    )


def _figures(mixed: Mixed, told: pa.Table, budget: Budget) -> dict[str, Any]:
    return {
        "budget_unit": budget.unit,
        "num_domains": len(told),
        "num_seen_more_than_once": int((mixed.copies[:, 0] > 1).sum()),
        "largest_share_missed": float(np.abs(told["share"].to_numpy() - told["weight"].to_numpy()).max()),
        "domains": told.to_pylist(),
    }


def _notes(mixed: Mixed, max_epochs: float) -> Iterator[str]:
    yield from (note.replace("source", "domain") for note in mixed.notes)
    num = int((mixed.copies[:, 0] > 1).sum())
    if num:
        yield (
            f"{num:,} documents are to be seen more than once, at most {int(np.ceil(max_epochs))} times; each is "
            "written once: report/copies.parquet says how often."
        )
