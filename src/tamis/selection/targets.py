"""Several targets at once: each gets its own share of the budget, and no document is kept twice.

Source: Xie et al. 2023, arXiv:2302.03169 (separate targets); the order by content: tamis design (method card C1).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import xxhash

from tamis.data.corpus import Corpus, Documents
from tamis.errors import UsageError
from tamis.models.encoder import Encoder
from tamis.ops.hashing import array_keys
from tamis.ops.ngrams import count_words
from tamis.ops.text import joined
from tamis.selection.budget import Budget, quotas
from tamis.selection.choice import Choice, Engine, Selected, batches_of, seen, tasks
from tamis.selection.selector import Selector, count_pool


def choose_for_targets(
    selector: Selector,
    corpus: Documents,
    targets: Mapping[str, Documents],
    shares: Mapping[str, float] | None = None,
    encoder: Encoder | None = None,
    *,
    seed: int,
    engine: Engine = map,
) -> dict[str, Choice]:
    """Choose for one target after another, each from what the others left.

    What does not depend on a target (sketches, vectors, clusters, the words of the pool) is found once.

    The turn goes by the hash of a target's contents: neither names nor order of the arguments change anything.

    Args:
      selector: its budget is that of all targets together.
      corpus: the pool.
      targets: by name.
      shares: of the budget by name, any scale; by default the targets' words.
      encoder: for methods that need vectors.
      seed: of random draws.
      engine: where batches are worked on.

    Returns:
      by name in the order given; a document is kept in one at most. What another target took before has the
      reason ``taken_for_other_target``.

    Raises:
      UsageError: no targets, shares of other names or below 0, or a share too small for one unit.
      DataError: as `Selector.choose`.
    """
    facts = {name: _fingerprint(target) for name, target in targets.items()}
    names = sorted(targets, key=lambda name: (facts[name][0], name))  # for the odd unit of the quotas, too
    weights = [float(shares.get(name, -1.0)) if shares is not None else facts[name][1] for name in names]
    if not names or (shares is not None and set(shares) != set(names)) or not all(0 <= w < np.inf for w in weights):
        raise UsageError(
            f"targets {', '.join(names) or '(none)'}, shares {dict(shares) if shares is not None else 'by words'}: "
            "give at least one target, and either no shares or one of at least 0 for each."
        )
    total = _limit(selector.budget, corpus, engine)
    amounts = dict(zip(names, quotas(total, np.array(weights)).tolist(), strict=True)) if any(weights) else {}
    taken = np.zeros(len(corpus), bool)
    pool, counts = _studied(selector, corpus, encoder, seed, engine) if len(corpus) else (None, None)
    choices: dict[str, Choice] = {}
    for name in names:
        if not amounts.get(name):
            raise UsageError(
                f"target {name!r}: its share of {total} {selector.budget.unit} is less than one. "
                "Give a larger share or budget."
            )
        budget = Budget(**{selector.budget.unit: amounts[name]})
        own = selector.model_copy(update={"budget": budget})
        target = targets[name]
        choices[name] = own.choose(
            corpus, target, encoder, seed=seed, engine=engine, pool=pool, taken=taken, counts=counts
        )
        taken = taken | choices[name].kept
    return {name: choices[name] for name in targets}


def select_for_targets(
    selector: Selector,
    corpus: Corpus,
    targets: Mapping[str, Corpus],
    shares: Mapping[str, float] | None = None,
    encoder: Encoder | None = None,
    *,
    seed: int,
) -> dict[str, Selected]:
    """Load what `choose_for_targets` chose: one selection a target, without documents in common."""
    choices = choose_for_targets(selector, corpus, targets, shares, encoder, seed=seed)
    return {name: choice.selected(corpus) for name, choice in choices.items()}


def _fingerprint(target: Documents) -> tuple[int, int]:
    """Return a hash of the contents, whatever their order, and the number of words."""
    texts = [joined(batch) for batch in target.batches(seen(target))]
    keys = np.sort(np.concatenate([np.zeros(0, np.uint64), *(array_keys(t) for t in texts)]))
    return xxhash.xxh3_64_intdigest(keys.tobytes()), sum(int(count_words(t).sum()) for t in texts)


def _studied(
    selector: Selector, corpus: Documents, encoder: Encoder | None, seed: int, engine: Engine
) -> tuple[Any, np.ndarray]:
    """Return what the method needs to know of the pool, and the counts that figures are made of."""
    pool = selector.study(corpus, encoder, seed=seed, engine=engine)
    counts = selector.pool_counts(pool) if pool is not None else None
    return pool, count_pool(corpus, engine) if counts is None else counts


def _limit(budget: Budget, corpus: Documents, engine: Engine) -> int:
    if budget.frac is None:
        return budget.limit(0)
    return budget.limit(sum(engine(partial(_size, budget), tasks(corpus))))


def _size(budget: Budget, task: Any) -> int:  # noqa: ANN401 - a task of `tasks`
    return sum(int(budget.sizes(batch).sum()) for batch in batches_of(task))
