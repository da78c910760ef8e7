"""Tokenizer fit: is a tokenizer right for a corpus, and which words would it need.

Source: Rajaraman et al. 2024, Toward a Theory of Tokenization in LLMs, arXiv:2404.08335 (cross-entropy of a unigram
model over tokens); Zouhar et al. 2023, arXiv:2306.16842 (Rényi efficiency). Method card E3.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tamis.data.corpus import Documents
from tamis.data.settings import Settings
from tamis.errors import DataError, UsageError
from tamis.evaluation.density import words_of
from tamis.evaluation.keyed_sample import KeyedSample
from tamis.ops.hashing import array_keys, uniform
from tamis.ops.text import joined

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LIMITS = (256, 512, 8192)
MAX_REFERENCE_RATIO = 1.25
MAX_SPLIT_FRAC = 0.1
_HELD_OUT = 0.1
_CHUNK = 256


class DomainWord(Settings):
    """A word that would save tokens as an entry of its own: ``num_saved`` = times in the sample x (pieces - 1)."""

    word: str
    count: int
    pieces: int
    num_saved: int


class TokenizerRow(Settings):
    """One tokenizer on the sample.

    Attributes:
      name: as it was given; ``vocabulary`` its number of entries.
      fertility: tokens a word; ``bytes_per_token`` the other way round.
      split3_frac: share of the words (by occurrence) in 3 or more pieces; ``split4_frac`` in 4 or more.
      unknown_frac: share of the tokens that are the unknown token.
      p50: tokens of a document, nearest rank; ``p90`` and ``p99`` likewise.
      over: share of the documents with more than 256, 512 and 8,192 tokens.
      bits_per_byte: of the held-out tokens under a unigram model of the others (add one half).
      cost_bits_per_byte: what the vocabulary costs on the sample, V log2(N) / 2 bits; add it to compare
        vocabularies of different sizes.
      renyi: Rényi efficiency of order 2.5 of the token distribution; 1 is an even use of the vocabulary.
      words: those whose own entry would save most tokens.
      saved_frac: share of the sample's tokens that entries for all of ``words`` would save.
      advice: "" or why the vocabulary should be extended.
    """

    name: str
    vocabulary: int
    fertility: float
    bytes_per_token: float
    split3_frac: float
    split4_frac: float
    unknown_frac: float
    p50: int
    p90: int
    p99: int
    over: dict[str, float]
    bits_per_byte: float
    cost_bits_per_byte: float
    renyi: float
    words: tuple[DomainWord, ...]
    saved_frac: float
    advice: str


class TokenizerFacts(Settings):
    """Tokenizers on one keyed sample of different texts."""

    num_docs: int
    num_bytes: int
    num_words: int
    rows: tuple[TokenizerRow, ...]


class TokenizerFit(Settings):
    """Measure tokenizers on a sample of the corpus.

    Attributes:
      sample_bytes: of text; tokenising runs at 2 to 3 MB/s.
      num_words: words listed that would save most.
      min_count: a listed word occurs at least this often in the sample.
      reference: name of a tokenizer whose fertility the others are held against; "" for none.
      renyi_order: of the Rényi efficiency; the paper's best is 2.5.
    """

    method: Literal["tokenizer_fit"] = "tokenizer_fit"
    sample_bytes: Annotated[int, Field(ge=1000)] = 20_000_000
    num_words: Annotated[int, Field(ge=0, le=1000)] = 20
    min_count: Annotated[int, Field(ge=1)] = 5
    reference: str = ""
    renyi_order: Annotated[float, Field(gt=1)] = 2.5

    def report(
        self, corpus: Documents, tokenizers: "Mapping[str, Tokenizer | Path | str]", *, seed: int
    ) -> TokenizerFacts:
        """Read the corpus once for the sample, then tokenise it with each.

        Args:
          corpus: any documents.
          tokenizers: name -> a tokenizer of the tokenizers library, or the path of a tokenizer.json.
          seed: of the sample and of its held-out tenth.

        Raises:
          UsageError: no tokenizers, or the reference is not among them.
          DataError: the corpus is empty, or a tokenizer cannot be read.
        """
        if not tokenizers:
            raise UsageError("tokenizer fit: no tokenizers. Give at least one, by name.")
        if self.reference and self.reference not in tokenizers:
            raise UsageError(f"tokenizer fit: the reference {self.reference!r} is not among {', '.join(tokenizers)}.")
        draws, texts = _sample(corpus, self.sample_bytes, seed)
        if not len(texts):
            raise DataError("tokenizer fit: the corpus is empty. Give documents.")
        listed = pc.utf8_slice_codeunits(texts, 0, self.sample_bytes).to_pylist()  # one text may be larger than all
        held_out = uniform(draws, seed, "folds") < _HELD_OUT
        if held_out.all() or not held_out.any():  # so few texts that chance left one side empty
            held_out = np.arange(len(listed)) % 10 == 0
        words = Counter(words_of(listed, self.sample_bytes))
        rows = [self._row(name, load_tokenizer(given), listed, words, held_out) for name, given in tokenizers.items()]
        reference = next((row.fertility for row in rows if row.name == self.reference), None)
        return TokenizerFacts(
            num_docs=len(listed),
            num_bytes=_num_bytes(listed),
            num_words=words.total(),
            rows=tuple(row.model_copy(update={"advice": advice(row, reference)}) for row in rows),
        )

    def _row(
        self, name: str, tokenizer: "Tokenizer", texts: Sequence[str], words: Mapping[str, int], held_out: np.ndarray
    ) -> TokenizerRow:
        vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        lengths, counts = _counts(tokenizer, texts, vocabulary, held_out)
        num_tokens, num_bytes = int(lengths.sum()), _num_bytes(texts)
        ordered = list(words)
        after_blank = [" " + word for word in ordered]  # as within a line
        pieces = np.array([len(found) for found in _encode(tokenizer, after_blank)], np.int64)
        times = np.fromiter((words[word] for word in ordered), np.int64, len(ordered))
        num_words = max(1, int(times.sum()))
        best = self._words(ordered, times, pieces)
        ranks = np.sort(lengths)
        quantiles = [int(ranks[max(0, math.ceil(len(ranks) * q) - 1)]) for q in (0.5, 0.9, 0.99)]
        unknown = _unknown_id(tokenizer)
        total = counts.sum(axis=0)
        return TokenizerRow(
            name=name,
            vocabulary=vocabulary,
            fertility=num_tokens / num_words,
            bytes_per_token=num_bytes / max(1, num_tokens),
            split3_frac=int(times[pieces >= 3].sum()) / num_words,
            split4_frac=int(times[pieces >= 4].sum()) / num_words,
            unknown_frac=int(total[unknown]) / max(1, num_tokens) if unknown is not None else 0.0,
            p50=quantiles[0],
            p90=quantiles[1],
            p99=quantiles[2],
            over={str(limit): int((lengths > limit).sum()) / len(lengths) for limit in LIMITS},
            bits_per_byte=bits_per_byte(
                counts[0], counts[1], _num_bytes([t for t, held in zip(texts, held_out, strict=True) if held])
            ),
            cost_bits_per_byte=vocabulary * math.log2(max(2, num_tokens)) / 2 / max(1, num_bytes),
            renyi=renyi_efficiency(total, self.renyi_order, vocabulary),
            words=best,
            saved_frac=sum(word.num_saved for word in best) / max(1, num_tokens),
            advice="",
        )

    def _words(self, words: Sequence[str], times: np.ndarray, pieces: np.ndarray) -> tuple[DomainWord, ...]:
        saved = times * (pieces - 1)
        able = [i for i in np.flatnonzero((saved > 0) & (times >= self.min_count)).tolist() if words[i].strip("_")]
        able.sort(key=lambda i: (-saved[i], words[i]))
        return tuple(
            DomainWord(word=words[i], count=int(times[i]), pieces=int(pieces[i]), num_saved=int(saved[i]))
            for i in able[: self.num_words]
        )


def load_tokenizer(given: "Tokenizer | Path | str") -> "Tokenizer":
    """Return a tokenizer that neither truncates nor pads.

    Raises:
      DataError: the file is missing or no tokenizer.json.
    """
    from tokenizers import Tokenizer

    try:
        text = Path(given).read_text(encoding="utf-8") if isinstance(given, str | Path) else given.to_str()
        tokenizer = Tokenizer.from_str(text)  # a copy: the caller's keeps its truncation
    except OSError as error:
        raise DataError(f"cannot read {given}: {error.strerror}. Give the path of a tokenizer.json.") from error
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{given}: not a tokenizer.json ({error}).") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def bits_per_byte(fitting: np.ndarray, held_out: np.ndarray, num_bytes: int) -> float:
    """Cross-entropy of held-out token counts under the add-one-half unigram model of the others, in bits a byte.

    Args:
      fitting: int64 [V] counts that the model is made of.
      held_out: int64 [V] counts that are coded.
      num_bytes: of the held-out text.
    """
    model = (fitting + 0.5) / (int(fitting.sum()) + 0.5 * len(fitting))
    return -math.fsum((held_out * np.log2(model)).tolist()) / max(1, num_bytes)


def renyi_efficiency(counts: np.ndarray, order: float, vocabulary: int) -> float:
    """Rényi entropy of the given order over its largest value ln V; 0 for fewer than two entries or no counts."""
    total = int(counts.sum())
    if not total or vocabulary < 2:
        return 0.0
    power = math.fsum(((counts / total) ** order).tolist())
    return math.log(power) / (1 - order) / math.log(vocabulary)


def advice(row: TokenizerRow, reference: float | None) -> str:
    """Say why a vocabulary should be extended, or nothing."""
    reasons = []
    if reference and row.fertility > MAX_REFERENCE_RATIO * reference:
        reasons.append(f"{row.fertility / reference:.2f} times as many tokens a word as the reference")
    if row.split4_frac > MAX_SPLIT_FRAC:
        reasons.append(f"{100 * row.split4_frac:.0f} % of the words need 4 pieces or more")
    return f"Extend the vocabulary: {' and '.join(reasons)}." if reasons else ""


def _sample(corpus: Documents, num_bytes: int, seed: int) -> tuple[np.ndarray, pa.Array]:
    sample = KeyedSample(num_bytes, seed=seed)
    for batch in corpus.batches(["title", "text"]):
        texts = joined(batch)
        sample.add(texts, array_keys(texts), pc.binary_length(texts).to_numpy(zero_copy_only=False))
    return sample.keys_and_texts()


def _encode(tokenizer: "Tokenizer", texts: Sequence[str]) -> Iterable[Sequence[int]]:
    for start in range(0, len(texts), _CHUNK):
        for found in tokenizer.encode_batch_fast(texts[start : start + _CHUNK], add_special_tokens=False):
            yield found.ids


def _counts(
    tokenizer: "Tokenizer", texts: Sequence[str], vocabulary: int, held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens of each text, int64 [n], and counts int64 [2, V] of the fitting and the held-out part."""
    counts = np.zeros((2, vocabulary), np.int64)
    lengths = np.zeros(len(texts), np.int64)
    for row, found in enumerate(_encode(tokenizer, texts)):
        lengths[row] = len(found)
        values, times = np.unique(np.asarray(found, np.int64), return_counts=True)
        counts[int(held_out[row])][values] += times
    return lengths, counts


def _num_bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _unknown_id(tokenizer: "Tokenizer") -> int | None:
    name = getattr(tokenizer.model, "unk_token", None)
    if name is None:
        candidates = [n for n in ("[UNK]", "<unk>") if tokenizer.token_to_id(n) is not None]
        name = candidates[0] if candidates else None
    return tokenizer.token_to_id(name) if name else None
