"""Quality rules: web-shaped junk out, every failing rule of a document named.

Source: Rae et al. 2021 (Gopher, arXiv:2112.11446, table A1); Raffel et al. 2020 (C4, arXiv:1910.10683); Penedo et al.
2024 (FineWeb, arXiv:2406.17557). C4's line rules, which change text, are in `tamis.ingestion.c4`.

Rules look at the text alone, not at the title. They compare statistics of `tamis.ops.textstats` with thresholds, so
statistics once made can be judged again without the texts. No filter fits every corpus (Longpre et al. 2023,
arXiv:2305.13169): the result says what each rule did to each source.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Corpus, Sifted
from tamis.data.settings import Settings
from tamis.ops import textstats
from tamis.ops.bytes import Texts
from tamis.ops.language import UNKNOWN, document_languages

TEXT = pa.large_string()
FLAGGED_FRAC = 0.5
"""A source that loses more than this share of its documents is flagged: look at it before you go on."""
Share = Annotated[float, Field(ge=0, le=1)]


class Check(NamedTuple):
    """One comparison: what a document had when it fails.

    Attributes:
      reason: name of the fault.
      name: statistic, one of `tamis.ops.textstats.FIELDS`.
      bound: least or largest value that passes.
      is_max: whether the bound is the largest.
      scope: "all" documents; "spaced": those mostly written with blanks; "english": in plain Latin letters and not
        recognised as another language.
    """

    reason: str
    name: str
    bound: float
    is_max: bool = True
    scope: Literal["all", "spaced", "english"] = "all"


class Judgement(NamedTuple):
    """What rules say about n texts.

    Attributes:
      reasons: names of the checks, in their order.
      failed: bool [n, len(reasons)].
    """

    reasons: tuple[str, ...]
    failed: np.ndarray

    def first(self) -> list[str]:
        """Return each text's first failing reason, "" where there is none."""
        if not self.reasons:
            return [""] * len(self.failed)
        names = np.array(["", *self.reasons])
        result: list[str] = names[np.where(self.failed.any(axis=1), self.failed.argmax(axis=1) + 1, 0)].tolist()
        return result

    def all(self) -> list[list[str]]:
        """Return all failing reasons of each text."""
        return [[self.reasons[at] for at in np.flatnonzero(row)] for row in self.failed]


@dataclass(frozen=True)
class QualityResult(Sifted):
    """Kept and dropped documents, and what the rules did. ``dropped`` has ``reason`` (the first) and ``reasons``.

    Attributes:
      sources: source, num_docs, num_dropped, drop_frac, is_flagged (above FLAGGED_FRAC); by source.
      rules: source, reason, num_docs (failing; a document counts for each of its reasons); by both.
    """

    sources: pa.Table
    rules: pa.Table


class Rules(Settings):
    """Base of sets of rules: `checks` says them, the verb is here."""

    @abstractmethod
    def checks(self) -> tuple[Check, ...]:
        """Return the comparisons, in the order in which reasons are given."""

    def judge(self, texts: Texts, statistics: np.ndarray | None = None) -> Judgement:
        """Judge n texts, each on its own. About 70 MB/s a core.

        Args:
          texts: n strings.
          statistics: float32 [n, F], what `tamis.ops.textstats.statistics` gave for them; else made here.
        """
        checks = self.checks()
        if not checks:
            return Judgement((), np.zeros((len(texts), 0), dtype=bool))
        values = textstats.statistics(texts) if statistics is None else statistics
        spaced = 2 * textstats.field(values, "spaceless_words") <= textstats.field(values, "words")
        scopes = {"all": np.ones(len(values), dtype=bool), "spaced": spaced}
        if any(check.scope == "english" for check in checks):
            scopes["english"] = english_like(texts)
        failed = np.zeros((len(values), len(checks)), dtype=bool)
        for at, check in enumerate(checks):
            column, bound = textstats.field(values, check.name), np.float32(check.bound)
            failed[:, at] = ((column > bound) if check.is_max else (column < bound)) & scopes[check.scope]
        return Judgement(tuple(check.reason for check in checks), failed)

    def sift(self, corpus: Corpus, *, seed: int) -> QualityResult:
        """Drop the documents that fail a rule. One pass; each document is judged on its own.

        Args:
          corpus: any documents.
          seed: unused; every sieve takes it.
        """
        kept, dropped, sources, faults = [], [], [], []
        for batch in corpus.batches():
            judgement = self.judge(batch["text"])
            gone = judgement.failed.any(axis=1)
            table = pa.Table.from_batches([batch])
            kept.append(table.filter(pa.array(~gone)))
            bad = Judgement(judgement.reasons, judgement.failed[gone])
            out = table.filter(pa.array(gone)).append_column("reason", pa.array(bad.first(), TEXT))
            dropped.append(out.append_column("reasons", pa.array(bad.all(), pa.list_(TEXT))))
            sources.append(pa.table({"source": batch["source"].cast(TEXT), "is_dropped": gone.astype(np.int64)}))
            rows, numbers = np.nonzero(judgement.failed)
            names = pa.array([judgement.reasons[number] for number in numbers.tolist()], TEXT)
            faults.append(pa.table({"source": batch["source"].cast(TEXT).take(pa.array(rows)), "reason": names}))
        schema = corpus.schema
        gone_schema = schema.append(pa.field("reason", TEXT)).append(pa.field("reasons", pa.list_(TEXT)))
        return QualityResult(
            Corpus.from_table(pa.concat_tables([schema.empty_table(), *kept])),
            pa.concat_tables([gone_schema.empty_table(), *dropped]),
            _by_source(sources),
            _by_rule(faults),
        )


class GopherQuality(Rules):
    """Gopher's rules on words, symbols and lines; a threshold at its widest never fails.

    Attributes:
      num_words: least and most words; the paper has 50 and 100,000.
      mean_word_chars: least and most characters of a mean word; 3 and 10.
      max_symbols_per_word: of "#", and of ellipses; 0.1.
      max_bullet_line_frac: lines starting with a bullet or hyphen; 0.9.
      max_ellipsis_line_frac: lines ending in an ellipsis; 0.3.
      min_alphabetic_word_frac: words with a letter; 0.8.
      min_stop_words: of the, be, to, of, and, that, have, with; 2. Not asked of other languages.
    """

    method: Literal["gopher_quality"] = "gopher_quality"
    num_words: tuple[int, int] = (50, 100_000)
    mean_word_chars: tuple[float, float] = (3.0, 10.0)
    max_symbols_per_word: Annotated[float, Field(ge=0)] = 0.1
    max_bullet_line_frac: Share = 0.9
    max_ellipsis_line_frac: Share = 0.3
    min_alphabetic_word_frac: Share = 0.8
    min_stop_words: Annotated[int, Field(ge=0, le=8)] = 2

    def checks(self) -> tuple[Check, ...]:
        """Return the comparisons."""
        return (
            Check("too_few_words", "words", self.num_words[0], is_max=False),
            Check("too_many_words", "words", self.num_words[1]),
            Check("short_words", "mean_word_chars", self.mean_word_chars[0], is_max=False, scope="spaced"),
            Check("long_words", "mean_word_chars", self.mean_word_chars[1], scope="spaced"),
            Check("many_hash_marks", "hashes_per_word", self.max_symbols_per_word),
            Check("many_ellipses", "ellipses_per_word", self.max_symbols_per_word),
            Check("bullet_lines", "bullet_line_frac", self.max_bullet_line_frac),
            Check("ellipsis_lines", "ellipsis_line_frac", self.max_ellipsis_line_frac),
            Check("few_alphabetic_words", "alphabetic_word_frac", self.min_alphabetic_word_frac, is_max=False),
            Check("few_stop_words", "stop_words", self.min_stop_words, is_max=False, scope="english"),
        )


class GopherRepetition(Rules):
    """Gopher's rules on repeated lines, paragraphs and n-grams. N-grams count in texts written with blanks.

    Attributes:
      max_duplicate_frac: lines, and paragraphs, that an earlier one equals; 0.3.
      max_duplicate_char_frac: their characters, of the characters of all lines; 0.2.
      max_top_ngram_char_frac: of the most frequent 2-, 3- and 4-gram; 0.20, 0.18, 0.16.
      max_duplicate_ngram_char_frac: of repeated 5- to 10-grams; 0.15 to 0.10.
    """

    method: Literal["gopher_repetition"] = "gopher_repetition"
    max_duplicate_frac: Share = 0.3
    max_duplicate_char_frac: Share = 0.2
    max_top_ngram_char_frac: tuple[Share, Share, Share] = (0.20, 0.18, 0.16)
    max_duplicate_ngram_char_frac: tuple[Share, Share, Share, Share, Share, Share] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.1)

    def checks(self) -> tuple[Check, ...]:
        """Return the comparisons."""
        found = []
        for unit in ("line", "paragraph"):
            found.append(Check(f"duplicate_{unit}s", f"duplicate_{unit}_frac", self.max_duplicate_frac))
            chars = f"duplicate_{unit}_char_frac"
            found.append(Check(f"duplicate_{unit}_chars", chars, self.max_duplicate_char_frac))
        for n, bound in enumerate(self.max_top_ngram_char_frac, 2):
            found.append(Check(f"top_{n}_gram", f"top_{n}_gram_char_frac", bound, scope="spaced"))
        for n, bound in enumerate(self.max_duplicate_ngram_char_frac, 5):
            found.append(Check(f"duplicate_{n}_grams", f"duplicate_{n}_gram_char_frac", bound, scope="spaced"))
        return tuple(found)


class FineWebLines(Rules):
    """FineWeb's rules on the shape of lines.

    Attributes:
      min_terminal_line_frac: lines that end like a sentence; 0.12.
      max_short_line_frac: lines of at most 30 characters; 0.67.
      max_duplicate_line_char_frac: characters of repeated lines; 0.01.
      max_line_ends_per_word: 0.3.
    """

    method: Literal["fineweb_lines"] = "fineweb_lines"
    min_terminal_line_frac: Share = 0.12
    max_short_line_frac: Share = 0.67
    max_duplicate_line_char_frac: Share = 0.01
    max_line_ends_per_word: Annotated[float, Field(ge=0)] = 0.3

    def checks(self) -> tuple[Check, ...]:
        """Return the comparisons."""
        return (
            Check("few_terminal_lines", "terminal_line_frac", self.min_terminal_line_frac, is_max=False),
            Check("short_lines", "short_line_frac", self.max_short_line_frac),
            Check("repeated_line_chars", "duplicate_line_char_frac", self.max_duplicate_line_char_frac),
            Check("many_line_ends", "line_ends_per_word", self.max_line_ends_per_word),
        )


class C4Documents(Rules):
    """C4's rules on whole documents, without its line rules.

    Attributes:
      min_sentences: 5.
      max_braces: "{" in the text; 0.
      drop_lorem_ipsum: whether filler text is a fault.
    """

    method: Literal["c4_documents"] = "c4_documents"
    min_sentences: Annotated[int, Field(ge=0)] = 5
    max_braces: Annotated[int, Field(ge=0)] = 0
    drop_lorem_ipsum: bool = True

    def checks(self) -> tuple[Check, ...]:
        """Return the comparisons."""
        lorem = (Check("lorem_ipsum", "lorem_ipsum", 0),) if self.drop_lorem_ipsum else ()
        few = Check("too_few_sentences", "sentences", self.min_sentences, is_max=False, scope="english")
        return (*lorem, Check("curly_braces", "braces", self.max_braces), few)


_DOCUMENT_WORDS = GopherQuality(
    num_words=(10, 100_000_000),
    mean_word_chars=(0.0, 1e9),
    max_symbols_per_word=1e9,
    max_bullet_line_frac=1.0,
    max_ellipsis_line_frac=1.0,
    min_alphabetic_word_frac=0.5,
    min_stop_words=0,
)


_DOCUMENT_REPETITION = GopherRepetition(  # a summary above its sections repeats them: twice the paper's n-grams
    max_top_ngram_char_frac=(0.40, 0.36, 0.32),
    max_duplicate_ngram_char_frac=(0.30, 0.28, 0.26, 0.24, 0.22, 0.20),
)


class Quality(Rules):
    """A preset of rules; a set of rules given in full takes the place of the preset's.

    Attributes:
      preset: "web": all rules of the papers; "documents": at least 10 words, half of them with a letter, and the
        repetition rules at twice the papers' n-gram shares; "code": at least 10 words, and repeated 10-grams; "off":
        none.
      words: in place of the preset's.
      repetition: in place of the preset's.
      lines: in place of the preset's.
      documents: in place of the preset's.
    """

    method: Literal["quality"] = "quality"
    preset: Literal["web", "documents", "code", "off"] = "documents"
    words: GopherQuality | None = None
    repetition: GopherRepetition | None = None
    lines: FineWebLines | None = None
    documents: C4Documents | None = None

    def checks(self) -> tuple[Check, ...]:
        """Return the comparisons of the preset; those that nothing can fail are left out."""
        preset: dict[str, Rules] = {}
        if self.preset == "web":
            preset = {
                "words": GopherQuality(),
                "repetition": GopherRepetition(),
                "lines": FineWebLines(),
                "documents": C4Documents(),
            }
        elif self.preset == "documents":
            preset = {"words": _DOCUMENT_WORDS, "repetition": _DOCUMENT_REPETITION}
        elif self.preset == "code":
            only_10 = GopherRepetition(
                max_duplicate_frac=1.0,
                max_duplicate_char_frac=1.0,
                max_top_ngram_char_frac=(1.0, 1.0, 1.0),
                max_duplicate_ngram_char_frac=(1.0, 1.0, 1.0, 1.0, 1.0, 0.2),
            )
            words = GopherQuality(**{**_DOCUMENT_WORDS.model_dump(), "min_alphabetic_word_frac": 0.0})
            preset = {"words": words, "repetition": only_10}
        chosen = [getattr(self, name) or preset.get(name) for name in ("words", "repetition", "lines", "documents")]
        return tuple(check for rules in chosen if rules is not None for check in rules.checks() if _can_fail(check))


def english_like(texts: Texts) -> np.ndarray:
    """Bool [n]: whether rules made for English say anything: Latin letters, and no other language recognised."""
    languages, scripts = document_languages(texts)
    result: np.ndarray = np.isin(languages, ("en", UNKNOWN)) & np.isin(scripts, ("Latn", "Zyyy"))
    return result


def _can_fail(check: Check) -> bool:
    if not check.is_max:
        return check.bound > 0
    return check.bound < (1.0 if check.name.endswith("_frac") else 1e8)


def _by_source(parts: Iterable[pa.Table]) -> pa.Table:
    schema = pa.schema([("source", TEXT), ("is_dropped", pa.int64())])
    table = pa.concat_tables([schema.empty_table(), *parts])
    table = table.group_by("source").aggregate([("is_dropped", "count"), ("is_dropped", "sum")]).sort_by("source")
    num, gone = table["is_dropped_count"].cast(pa.int64()), table["is_dropped_sum"].cast(pa.int64())
    share = pc.divide(gone.cast(pa.float64()), num.cast(pa.float64()))
    return pa.table(
        {
            "source": table["source"],
            "num_docs": num,
            "num_dropped": gone,
            "drop_frac": share,
            "is_flagged": pc.greater(share, FLAGGED_FRAC),
        }
    )


def _by_rule(parts: Iterable[pa.Table]) -> pa.Table:
    schema = pa.schema([("source", TEXT), ("reason", TEXT)])
    table = (
        pa.concat_tables([schema.empty_table(), *parts]).group_by(["source", "reason"]).aggregate([([], "count_all")])
    )
    table = table.sort_by([("source", "ascending"), ("reason", "ascending")])
    return pa.table(
        {"source": table["source"], "reason": table["reason"], "num_docs": table["count_all"].cast(pa.int64())}
    )
