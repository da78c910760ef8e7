"""Corpus statistics: how many, how long, from where, in which scripts; one pass, flat memory.

Source: tamis design; the quantile sketch counts values below 4,096 exactly and larger ones to 1 %.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from tamis.data import Corpus
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.bytes import text_hashes

QUANTILES = (10, 50, 90, 99)
MAX_NAMES = 10_000
"""Sources and metadata fields are counted by name up to this many; the rest is counted as OTHERS."""
OTHERS = "(others)"
NUM_SHOWN = 20
_EXACT, _STEPS = 4096, 128
_SCRIPTS: tuple[tuple[int, int, str], ...] = (
    (0x41, 0x5B, "Latin"),
    (0x61, 0x7B, "Latin"),
    (0xAA, 0xAB, "Latin"),
    (0xBA, 0xBB, "Latin"),
    (0xC0, 0xD7, "Latin"),
    (0xD8, 0xF7, "Latin"),
    (0xF8, 0x2B0, "Latin"),
    (0x370, 0x400, "Greek"),
    (0x400, 0x530, "Cyrillic"),
    (0x531, 0x590, "Armenian"),
    (0x5D0, 0x600, "Hebrew"),
    (0x620, 0x700, "Arabic"),
    (0x750, 0x780, "Arabic"),
    (0x900, 0x980, "Devanagari"),
    (0x980, 0xE00, "other Indic"),
    (0xE00, 0xE80, "Thai"),
    (0xE80, 0x10A0, "other Asian"),
    (0x10A0, 0x1100, "Georgian"),
    (0x1100, 0x1200, "Hangul"),
    (0x1200, 0x13A0, "Ethiopic"),
    (0x1780, 0x1800, "other Asian"),
    (0x1E00, 0x1F00, "Latin"),
    (0x1F00, 0x2000, "Greek"),
    (0x3041, 0x3100, "Kana"),
    (0x3400, 0x4DC0, "Han"),
    (0x4E00, 0xA000, "Han"),
    (0xAC00, 0xD7B0, "Hangul"),
    (0xF900, 0xFB00, "Han"),
    (0x20000, 0x32000, "Han"),
)
_EDGES = np.array([edge for start, stop, _ in _SCRIPTS for edge in (start, stop)])


class Count(Settings):
    """A name and how many documents (or letters) it stands for."""

    name: str
    count: int
    frac: float


class Lengths(Settings):
    """Quantiles (nearest rank) of a length over the documents."""

    total: int
    mean: float
    p10: int
    p50: int
    p90: int
    p99: int
    largest: int


class CorpusStatistics(Settings):
    """What is in a corpus.

    Attributes:
      num_docs: documents (or passages).
      chars: lengths in characters; ``words`` in words of `tamis.ops.bytes`.
      histogram: documents by number of words, bins that double.
      titled_frac: share with a title.
      num_duplicates: documents whose text equals an earlier one's, by ``group_id``.
      num_duplicate_groups: texts that occur more than once.
      num_sources: different sources, MAX_NAMES and more counted as MAX_NAMES.
      sources: the largest, by documents.
      fields: metadata fields by the documents that have them, null left out.
      scripts: share of the letters in each script.
    """

    num_docs: int
    chars: Lengths
    words: Lengths
    histogram: tuple[Count, ...]
    titled_frac: float
    num_duplicates: int
    num_duplicate_groups: int
    num_sources: int
    sources: tuple[Count, ...]
    fields: tuple[Count, ...]
    scripts: tuple[Count, ...]

    @classmethod
    def of(cls, corpus: Corpus) -> "CorpusStatistics":
        """Read a corpus once, batch by batch. About 100 MB/s; memory does not grow with the documents.

        (But for 8 bytes for each text that occurs more than once.)
        """
        return cls.of_batches(corpus.batches(["doc_id", "title", "text", "source", "metadata", "group_id"]))

    @classmethod
    def of_batches(cls, batches: Iterable[pa.RecordBatch]) -> "CorpusStatistics":
        """Read batches of documents; how they are cut does not matter.

        Raises:
          DataError: a document's metadata is no JSON object.
        """
        counter = _Counter()
        for batch in batches:
            counter.add(batch)
        return counter.statistics()


class _Counter:
    def __init__(self) -> None:
        self.num_docs = self.num_titled = self.num_duplicates = 0
        self.chars, self.words = _Sketch(), _Sketch()
        self.groups = np.zeros(0, np.uint64)
        self.sources: Counter[str] = Counter()
        self.fields: Counter[str] = Counter()
        self.scripts: Counter[str] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        text = batch["text"]
        self.num_docs += len(batch)
        self.num_titled += pc.sum(pc.not_equal(batch["title"], "")).as_py() or 0
        self.chars.add(pc.utf8_length(text).to_numpy(zero_copy_only=False))
        self.words.add(text_hashes(text)[1])
        copies = batch["group_id"].filter(pc.not_equal(batch["group_id"], batch["doc_id"])).to_pylist()
        self.num_duplicates += len(copies)
        hashed = np.array([xxhash.xxh3_64_intdigest(g.encode()) for g in copies], dtype=np.uint64)
        self.groups = np.union1d(self.groups, hashed)
        for row in pc.value_counts(batch["source"]).to_pylist():
            _bump(self.sources, row["values"], row["counts"])
        for row, metadata in enumerate(batch["metadata"].to_pylist()):
            if metadata != "{}":
                self._add_fields(metadata, batch["doc_id"][row].as_py())
        self._add_scripts(text)

    def _add_fields(self, metadata: str, doc_id: str) -> None:
        try:
            record = orjson.loads(metadata)
            names = [name for name, value in record.items() if value is not None]
        except (ValueError, AttributeError) as error:
            raise DataError(f"document {doc_id!r}: its metadata is no JSON object: {metadata[:80]!r}.") from error
        for name in names:
            _bump(self.fields, name, 1)

    def _add_scripts(self, text: pa.Array) -> None:
        joined = "".join(text.filter(pc.invert(pc.string_is_ascii(text))).to_pylist())
        points = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
        places = np.searchsorted(_EDGES, points[points >= 128], side="right")
        found = np.bincount(places, minlength=2 * len(_SCRIPTS))[1::2]  # odd places lie within a range
        for (_, _, name), count in zip(_SCRIPTS, found.tolist(), strict=True):
            self.scripts[name] += count
        _, offsets, data = text.cast(pa.large_string()).buffers()
        stops = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1] if len(text) else [0]
        span = (
            np.frombuffer(data, np.uint8)[stops[0] : stops[-1]]
            if data is not None and data.size
            else np.zeros(0, np.uint8)
        )
        letters = np.bincount(span, minlength=256)
        self.scripts["Latin"] += int(letters[0x41:0x5B].sum() + letters[0x61:0x7B].sum())

    def statistics(self) -> CorpusStatistics:
        docs = max(1, self.num_docs)
        letters = max(1, sum(self.scripts.values()))
        return CorpusStatistics(
            num_docs=self.num_docs,
            chars=self.chars.lengths(),
            words=self.words.lengths(),
            histogram=self.words.doubling(docs),
            titled_frac=self.num_titled / docs,
            num_duplicates=self.num_duplicates,
            num_duplicate_groups=len(self.groups),
            num_sources=min(MAX_NAMES, len(self.sources)),
            sources=_largest(self.sources, docs),
            fields=_largest(self.fields, docs),
            scripts=_largest(self.scripts, letters),
        )


class _Sketch:
    """Counts of whole numbers: each value below 4,096, then 128 steps an octave."""

    def __init__(self) -> None:
        self.counts = np.zeros(_EXACT + 64 * _STEPS, np.int64)
        self.total = self.num = self.largest = 0

    def add(self, values: np.ndarray) -> None:
        if not len(values):
            return
        values = values.astype(np.int64)
        octave = np.maximum(np.frexp(values.astype(np.float64))[1] - 1, 12)  # 2^octave <= value from 4,096 on
        within = (values - (np.int64(1) << octave)) * _STEPS >> octave
        bins = np.where(values < _EXACT, values, _EXACT + (octave - 12) * _STEPS + within)
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.total += int(values.sum())
        self.num += len(values)
        self.largest = max(self.largest, int(values.max()))

    def lengths(self) -> Lengths:
        reached = np.cumsum(self.counts)
        ranks = [max(1, -(-self.num * q // 100)) for q in QUANTILES]
        p10, p50, p90, p99 = (_lower_edge(int(np.searchsorted(reached, rank))) if self.num else 0 for rank in ranks)
        mean = self.total / max(1, self.num)
        return Lengths(total=self.total, mean=mean, p10=p10, p50=p50, p90=p90, p99=p99, largest=self.largest)

    def doubling(self, num_docs: int) -> tuple[Count, ...]:
        """Return counts in bins 0, 1, 2-3, 4-7, ... up to the largest value."""
        edges = np.array([_lower_edge(i) for i in range(len(self.counts))], dtype=np.float64)
        places = np.frexp(edges)[1]
        counts = np.bincount(places, weights=self.counts).astype(np.int64)
        filled = np.flatnonzero(counts)
        if not len(filled):
            return ()
        return tuple(
            Count(name=_bin_name(place), count=int(counts[place]), frac=int(counts[place]) / num_docs)
            for place in range(int(filled[0]), int(filled[-1]) + 1)
        )


def _lower_edge(place: int) -> int:
    if place < _EXACT:
        return place
    octave, within = divmod(place - _EXACT, _STEPS)
    return (1 << (octave + 12)) + (within << (octave + 5))


def _bin_name(place: int) -> str:
    if place < 2:
        return str(place)
    return f"{1 << (place - 1):,}–{(1 << place) - 1:,}"


def _bump(counter: Counter[str], name: str, count: int) -> None:
    counter[name if name in counter or len(counter) < MAX_NAMES - 1 else OTHERS] += count


def _largest(counter: Counter[str], total: int) -> tuple[Count, ...]:
    ranked = sorted(((n, c) for n, c in counter.items() if c), key=lambda item: (-item[1], item[0]))
    return tuple(Count(name=name, count=count, frac=count / total) for name, count in ranked[:NUM_SHOWN])
