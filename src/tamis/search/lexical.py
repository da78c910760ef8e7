"""Text analysis: from a text to the terms that are indexed, the same for documents and queries.

Source: `Words` is the tokenisation of bm25s (Lù 2024, arXiv:2407.03618) with a Snowball stemmer (Porter 2001);
identifier splitting, character n-grams and single characters with bigrams are textbook.
"""

import re
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tamis.data.settings import Settings

Language = Literal[
    "danish",
    "dutch",
    "english",
    "french",
    "german",
    "italian",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]
QUERY_STOP_WORDS = frozenset(
    """a about above after again all also am among an and any are as at be because been before being below between
    both but by can could did do does doing down during each either else ever every few for from further get gets
    getting got had has have having he her here hers him his how however i if in into is it its itself just let like
    may me might mine more most much must my myself neither no nor not now of off on once only or other our ours out
    over own per please quite rather same shall she should since so some such than that the their theirs them then
    there these they this those through thus to too under until up upon us very via was we were what when where
    whether which while who whom whose why will with within without would yes yet you your yours don doesn didn isn
    aren ve want wants wanted need needs needed looking help tell know give show find explain describe""".split()  # noqa: SIM905 - a list of 180 quoted words is not readable
)
"""Words of an English question that say nothing about what is looked for; left out of queries alone."""
_WORD = re.compile(r"\b\w\w+\b")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
# Thai, Lao, Myanmar, Khmer, kana and ideographs: written without blanks.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"[{_SPACELESS}]+|[^\W{_SPACELESS}]+")
_IS_SPACELESS = re.compile(rf"[{_SPACELESS}]")
_MAX_SURFACES = 4_000_000


class Analysis(Settings):
    """What all analysers share: a splitter into surface words, and the terms of one surface word."""

    @property
    def splitter(self) -> re.Pattern[str]:
        """The pattern whose matches are the surface words; linear in the text."""
        return _WORD

    @property
    def lowers_first(self) -> bool:
        """Whether a text is lower-cased before it is split."""
        return False

    @abstractmethod
    def expand(self, surface: str) -> list[str]:
        """Return the terms of a surface word, before stemming; none for a stop word."""

    @property
    def stemming(self) -> Language | None:
        """Language of the stemmer."""
        return None

    @property
    def stopping(self) -> frozenset[str]:
        """Words left out of queries, as long as others remain."""
        return frozenset()

    def terms(self, text: str) -> list[str]:
        """Return the terms of a document's text in order, repeats kept. O(characters)."""
        stem = stems(self.stemming)
        return [t for word in self.surfaces(text) for t in stem(self.expand(word))]

    def query_terms(self, text: str) -> list[str]:
        """Return the terms of a query: those of its text, without the query stop words while others remain."""
        stem, found = stems(self.stemming), self.surfaces(text)
        telling = [stem(self.expand(w)) for w in found if w.lower() not in self.stopping]
        if not any(telling):
            telling = [stem(self.expand(w)) for w in found]
        return list(chain.from_iterable(telling))

    def num_telling(self, text: str) -> int:
        """Count the words of a query that say something: no stop words, none of the filler of questions."""
        return sum(1 for w in self.surfaces(text) if w.lower() not in QUERY_STOP_WORDS and self.expand(w))

    def surfaces(self, text: str) -> list[str]:
        """Return the surface words of a text."""
        return self.splitter.findall(text.lower() if self.lowers_first else text)

    def spans(self, text: str) -> Iterator[tuple[int, int, list[str]]]:
        """Yield (start, stop, terms) of each surface word, offsets in characters of ``text``."""
        stem = stems(self.stemming)
        for match in self.splitter.finditer(text):
            word = match.group()
            yield (*match.span(), stem(self.expand(word.lower() if self.lowers_first else word)))


class Words(Analysis):
    """Lower-cased words of two characters or more, without stop words, stemmed.

    With the defaults the terms are those of bm25s with its English stop words and the Snowball stemmer.

    Attributes:
      stemmer: Snowball language, or None.
      stop_words: language of the list left out of documents and queries, or None.
      query_stop_words: also leave the filler of English questions out of queries.
    """

    method: Literal["words"] = "words"
    stemmer: Language | None = "english"
    stop_words: Language | None = "english"
    query_stop_words: bool = False

    @property
    def lowers_first(self) -> bool:
        """True."""
        return True

    @property
    def stemming(self) -> Language | None:
        """Language of the stemmer."""
        return self.stemmer

    @property
    def stopping(self) -> frozenset[str]:
        """Words left out of queries, as long as others remain."""
        return QUERY_STOP_WORDS if self.query_stop_words else frozenset()

    def expand(self, surface: str) -> list[str]:
        """Return the word, or nothing for a stop word."""
        return [] if surface in stop_list(self.stop_words) else [surface]


class Code(Words):
    """Words, and besides a whole identifier also its parts at changes of case, digits and underscores.

    ``parseHTTPReply_2`` gives parsehttpreply_2, parse, http, reply; parts of one character are left out.
    """

    method: Literal["code"] = "code"  # type: ignore[assignment]

    @property
    def lowers_first(self) -> bool:
        """False: case tells where an identifier's parts begin."""
        return False

    def expand(self, surface: str) -> list[str]:
        """Return the lower-cased word, then its parts if it has several."""
        return _with_parts(surface, stop_list(self.stop_words))


class Grams(Analysis):
    """Character n-grams inside the words and identifier parts of `Code`, with the words' ends marked.

    ``cat`` gives _cat, cat_ at 4 characters: inflections, compounds, typing errors and product codes meet.

    Attributes:
      num_chars: characters of a gram, marks included.
      stop_words: language of the list of words left out, or None.
      query_stop_words: also leave the filler of English questions out of queries.
    """

    method: Literal["grams"] = "grams"
    num_chars: Annotated[int, Field(ge=2, le=8)] = 4
    stop_words: Language | None = "english"
    query_stop_words: bool = False

    @property
    def stopping(self) -> frozenset[str]:
        """Words left out of queries, as long as others remain."""
        return QUERY_STOP_WORDS if self.query_stop_words else frozenset()

    def expand(self, surface: str) -> list[str]:
        """Return the grams of the word and of its parts."""
        words = (f"_{w}_" for w in _with_parts(surface, stop_list(self.stop_words)))
        size = self.num_chars
        return [w[at : at + size] for w in words for at in range(max(1, len(w) - size + 1))]


class Neutral(Analysis):
    """For any language: lower-cased words of any length; no stemmer, no stop words.

    A script written without blanks gives its single characters and their pairs.
    """

    method: Literal["neutral"] = "neutral"

    @property
    def splitter(self) -> re.Pattern[str]:
        """Runs of characters of one kind."""
        return _RUN

    @property
    def lowers_first(self) -> bool:
        """True."""
        return True

    def expand(self, surface: str) -> list[str]:
        """Return the word, or the characters and pairs of a run without blanks."""
        if not _IS_SPACELESS.match(surface):
            return [surface]
        return [*surface, *(surface[at : at + 2] for at in range(len(surface) - 1))]


Analyser = Annotated[Words | Code | Grams | Neutral, Field(discriminator="method")]


def stop_list(language: Language | None) -> frozenset[str]:
    """Return the stop words of a language (the lists of bm25s)."""
    if language is None:
        return frozenset()
    found = _STOP_WORDS.get(language)
    if found is None:
        from bm25s import stopwords

        name = "EN" if language == "english" else language.upper()
        found = _STOP_WORDS[language] = frozenset(getattr(stopwords, f"STOPWORDS_{name}"))
    return found


_STOP_WORDS: dict[str, frozenset[str]] = {}


def _with_parts(surface: str, stops: frozenset[str]) -> list[str]:
    word = surface.lower()
    if not (surface.isdigit() or (surface.isalpha() and (surface.islower() or surface.istitle()))):
        parts = _PARTS.findall(surface)
        if len(parts) > 1:
            return [word, *(p.lower() for p in parts if len(p) > 1 and p.lower() not in stops)]
    return [] if word in stops else [word]


class _Stem:
    """Stems lists of words; an own stemmer each, because a stemmer must not be shared by threads."""

    def __init__(self, language: Language) -> None:
        import Stemmer

        self._stemmer = Stemmer.Stemmer(language)

    def __call__(self, words: list[str]) -> list[str]:
        stems: list[str] = self._stemmer.stemWords(words)
        return stems


def stems(language: Language | None) -> "_Stem | type[list[str]]":
    """Return a function from words to their stems; the words themselves without a language."""
    return list if language is None else _Stem(language)


class _Surfaces(dict[str, int]):
    """Surface word -> code; a new word is expanded once, all others are one look-up in C."""

    def __init__(self, analyser: Analysis, vocabulary: dict[str, int]) -> None:
        super().__init__()
        self._analyser, self._vocabulary = analyser, vocabulary
        self._stem = stems(analyser.stemming)
        self.terms, self.stops = array("i"), array("q", [0])

    def __missing__(self, surface: str) -> int:
        vocabulary = self._vocabulary
        for term in self._stem(self._analyser.expand(surface)):
            self.terms.append(vocabulary.setdefault(term, len(vocabulary)))
        self.stops.append(len(self.terms))
        code = len(self.stops) - 2
        self[surface] = code
        return code


class Vocabulary:
    """Terms numbered as they are met; turns batches of texts into arrays of term numbers."""

    def __init__(self, analyser: Analysis) -> None:
        """Start empty."""
        self._analyser = analyser
        self.terms: dict[str, int] = {}
        self._surfaces = _Surfaces(analyser, self.terms)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return starts int64 [n + 1] and term numbers int32 [T], text after text; new terms are added.

        One regular expression and one look-up a word, both in C: about 10 MB/s.
        """
        if len(self._surfaces) > _MAX_SURFACES:  # the cache of surface words alone; the terms stay
            self._surfaces = _Surfaces(self._analyser, self.terms)
        code_of, surfaces = self._surfaces.__getitem__, self._analyser.surfaces
        codes, sizes = array("i"), array("q", [0])
        for text in texts:
            codes.extend(map(code_of, surfaces(text)))
            sizes.append(len(codes))
        coded = np.frombuffer(codes, np.int32) if len(codes) else np.zeros(0, np.int32)
        terms = np.array(self._surfaces.terms, dtype=np.int32)
        stops = np.array(self._surfaces.stops, dtype=np.int64)
        first, count = stops[coded], stops[coded + 1] - stops[coded]
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
        spread = np.arange(ends[-1]) - np.repeat(ends[:-1] - first, count)
        return ends[np.frombuffer(sizes, np.int64)], terms[spread]


def weigh(queries: Iterable[Iterable[str]], rows: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn lists of query terms into a packed sparse matrix: weight = times a term occurs.

    Args:
      queries: terms of each query; unknown ones are left out.
      rows: term -> number.

    Returns:
      starts int64 [B + 1], terms int64 [n] ascending within a query, weights float64 [n].
    """
    starts, terms, weights = [0], array("q"), array("d")
    for query in queries:
        counts: dict[int, int] = {}
        for term in query:
            row = rows.get(term)
            if row is not None:
                counts[row] = counts.get(row, 0) + 1
        for row in sorted(counts):
            terms.append(row)
            weights.append(counts[row])
        starts.append(len(terms))
    return np.array(starts, np.int64), np.array(terms, np.int64), np.array(weights, np.float64)
