"""Unicode hygiene: text without invisible characters, in one normal form; every change is counted by class.

Source: Unicode TR15 and TR36; practice of CCNet (Wenzek et al. 2019, arXiv:1911.00359) and Gopher (arXiv:2112.11446).
"""

import re
import sys
import unicodedata
from collections import Counter
from functools import cache
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field

from tamis.data.corpus import Corpus, Sifted
from tamis.data.settings import Settings

CLASSES = ("mojibake", "line_end", "space", "control", "zero_width", "bidi", "tag", "noncharacter", "nfc", "mark")
MAX_PASSES = 4
_PLAIN = re.compile(r"[^\n\x20-\x7e]")  # absent: only line ends and blanks are left to look at
_MOJIBAKE = re.compile(r"[\x80-\xff]{2,}")
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_SPACE = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_DELETED = {
    "control": "\x00-\x08\x0e-\x1b\x1f\x7f-\x9f",  # after the line ends are gone from their midst
    "zero_width": "\xad\u200b\u2060-\u2065\ufeff",
    "bidi": "\u200e\u200f\u202a-\u202e\u2066-\u206f",
    "tag": "\U000e0000-\U000e007f\U000e0100-\U000e01ef",
    "noncharacter": "\ufdd0-\ufdef\ufff9-\ufffb\ud800-\udfff"
    + "".join(chr((plane << 16) | low) for plane in range(17) for low in (0xFFFE, 0xFFFF)),
}
_DELETIONS = {name: re.compile(f"[{characters}]") for name, characters in _DELETED.items()}
_ANY_DELETION = re.compile("[" + "".join(_DELETED.values()) + "]")
_LONG_GAP = re.compile(r"\n{4,}")
_EDGES = " \t\n"


class Unicode(Settings):
    """Remove what nobody can see and bring the rest to NFC.

    Attributes:
      max_marks: consecutive combining marks that are kept.
      keep_tabs: leave tabs as they are (code).
      repair_mojibake: undo UTF-8 that was read as Latin-1, run by run.
    """

    method: Literal["unicode"] = "unicode"
    max_marks: Annotated[int, Field(ge=1)] = 4
    keep_tabs: bool = False
    repair_mojibake: bool = True

    def clean(self, text: str) -> tuple[str, Counter[str], bool]:
        """Clean one text; O(characters), and one search for plain ASCII. Idempotent.

        Returns:
          The text, the number of changes by class (CLASSES; blanks at line ends are not counted), and
          whether it is stable: False when four passes were not enough.
        """
        counts: Counter[str] = Counter()
        if _PLAIN.search(text) is None:
            return _tidy(text), counts, True
        for _ in range(MAX_PASSES):
            cleaned = self._pass(text, counts)
            if cleaned == text:
                return text, counts, True
            text = cleaned
        return text, counts, self._pass(text, Counter()) == text

    def sift(self, corpus: Corpus, *, seed: int) -> Sifted:
        """Clean titles and texts; drop what has nothing left (``empty_text``) or never settles (``unstable_text``).

        Args:
          corpus: any documents.
          seed: unused; every sieve takes it.
        """
        kept, dropped = [], []
        for batch in corpus.batches():
            texts, titles, reasons = [], [], []
            for text, title in zip(batch["text"].to_pylist(), batch["title"].to_pylist(), strict=True):
                cleaned, _, stable = self.clean(text)
                texts.append(cleaned)
                titles.append(self.clean(title)[0])
                reasons.append("" if stable and cleaned else "unstable_text" if not stable else "empty_text")
            table = pa.Table.from_batches([batch])
            for name, values in (("text", texts), ("title", titles)):
                table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.large_string()))
            table = table.append_column("reason", pa.array(reasons, pa.large_string()))
            good = pa.array([not r for r in reasons], pa.bool_())
            kept.append(table.filter(good).drop_columns(["reason"]))
            dropped.append(table.filter(pa.array([bool(r) for r in reasons], pa.bool_())))
        schema = corpus.schema
        left = pa.concat_tables(kept) if kept else schema.empty_table()
        gone_schema = schema.append(pa.field("reason", pa.large_string()))
        return Sifted(Corpus.from_table(left), pa.concat_tables(dropped) if dropped else gone_schema.empty_table())

    def _pass(self, text: str, counts: Counter[str]) -> str:
        if self.repair_mojibake and not text.isascii():
            text = _MOJIBAKE.sub(lambda run: _repaired(run.group(), counts), text)
        text, num = _LINE_END.subn("\n", text)
        counts["line_end"] += num
        text, num = _space_pattern(self.keep_tabs).subn(" ", text)
        counts["space"] += num
        if _ANY_DELETION.search(text):
            for name, pattern in _DELETIONS.items():
                text, num = pattern.subn("", text)
                counts[name] += num
        if not text.isascii():
            if not unicodedata.is_normalized("NFC", text):
                text = unicodedata.normalize("NFC", text)
                counts["nfc"] += 1
            before = len(text)
            text = _mark_pattern(self.max_marks).sub(r"\1", text)
            counts["mark"] += before - len(text)
        return _tidy(text)


def _repaired(run: str, counts: Counter[str]) -> str:
    try:
        repaired = run.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return run
    counts["mojibake"] += 1
    return repaired


def _tidy(text: str) -> str:
    """Remove blanks before line ends, keep at most 3 line ends together, strip both ends; linear."""
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    if "\n\n\n\n" in text:
        text = _LONG_GAP.sub("\n\n\n", text)
    return text.strip(_EDGES)


@cache
def _space_pattern(keep_tabs: bool) -> re.Pattern[str]:
    return re.compile(f"[{_SPACE}{'' if keep_tabs else chr(9)}]")


@cache
def _mark_pattern(max_marks: int) -> re.Pattern[str]:
    """Match a run of more than ``max_marks`` marks (Mn, Me); group 1 is what stays."""
    ranges: list[list[int]] = []
    for code in range(0x300, sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Mn", "Me"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    marks = "[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges) + "]"
    return re.compile(f"({marks}{{{max_marks}}}){marks}++")
