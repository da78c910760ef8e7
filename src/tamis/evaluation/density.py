"""Feature density: how much of what is read in a corpus is new, at a sample of one size.

Source: Eronen et al. 2021, Feature Density (no arXiv id in the card); Covington, McFall 2010 (moving-average
type-token ratio); Heaps 1978. Method card E1.

All of these fall with the size of the sample, so only figures at equal `num_tokens` compare.
"""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from tamis.data.settings import Settings
from tamis.ops.language import stop_words

_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(f"[{_SPACELESS}]|[^\\W{_SPACELESS}]+")


class FeatureDensity(Settings):
    """Unique features / all features of one way of preparing the text."""

    name: str
    num_features: int
    num_unique: int
    density: float


def words_of(texts: Sequence[str], num_tokens: int) -> list[str]:
    """Return the first ``num_tokens`` words of the texts; scripts without blanks give single characters."""
    words = (match.group() for text in texts for match in _WORD.finditer(text))
    return list(itertools.islice(words, num_tokens))


def feature_densities(words: Sequence[str], language: str | None) -> tuple[FeatureDensity, ...]:
    """Measure the words as they are, lower-cased, stemmed, without stop words, in pairs, as 4 characters.

    Args:
      words: at most some hundred thousand, in reading order.
      language: of `tamis.ops.language.LANGUAGES`, for stems and stop words, which are left out where it is None.
    """
    lowered = [word.lower() for word in words]
    rows = [_density("raw", words), _density("lower", lowered)]
    if language is not None:
        import Stemmer

        stops = stop_words(language)
        rows.append(_density("stemmed", Stemmer.Stemmer(language).stemWords(lowered)))
        rows.append(_density("no stop words", [word for word in lowered if word not in stops]))
    rows.append(_density("bigrams", list(itertools.pairwise(lowered))))
    line = " ".join(lowered)
    rows.append(_density("characters-4", [line[i : i + 4] for i in range(len(line) - 3)]))
    return tuple(row for row in rows if row.num_features)


def _density(name: str, features: Sequence[object]) -> FeatureDensity:
    unique = len(set(features))
    return FeatureDensity(
        name=name, num_features=len(features), num_unique=unique, density=unique / max(1, len(features))
    )


def mattr(hashes: np.ndarray, window: int) -> float:
    """Moving-average type-token ratio of a token sequence: mean share of different tokens in ``window`` neighbours.

    O(T log T). A sequence shorter than the window is one window; an empty one gives 0.
    """
    num = len(hashes)
    width = min(window, num)
    if not num:
        return 0.0
    order = np.argsort(hashes, kind="stable")
    previous = np.full(num, -1, np.int64)
    same = hashes[order[1:]] == hashes[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    at = np.arange(num)
    # token j is the first of its kind in the windows that begin after its previous occurrence
    first = np.maximum(np.maximum(previous + 1, at - width + 1), 0)
    last = np.minimum(at, num - width)
    return int(np.maximum(last - first + 1, 0).sum()) / (width * (num - width + 1))


def vocabulary_growth(hashes: np.ndarray, sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return (tokens, different tokens among them) at each of the sizes that the sequence reaches."""
    _, first = np.unique(hashes, return_index=True)
    return tuple((size, int((first < size).sum())) for size in sizes if size <= len(hashes))


def heaps_exponent(growth: Sequence[tuple[int, int]]) -> float | None:
    """Slope of ln(different) on ln(tokens) by least squares; None for fewer than two sizes."""
    if len(growth) < 2:
        return None
    x = np.array([math.log(tokens) for tokens, _ in growth])
    y = np.array([math.log(max(1, unique)) for _, unique in growth])
    x -= x.mean()
    return float((x * (y - y.mean())).sum() / (x * x).sum())
