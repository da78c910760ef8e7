"""Findings: the sentences at the head of an audit, each with the figure it follows from.

Source: tamis design; the limits of age and tokenizer are those of method cards E2 and E3.
"""

from typing import TYPE_CHECKING, Literal

from tamis.data.settings import Settings
from tamis.evaluation.slices import MIN_NEAR_FRAC
from tamis.ops.language import UNKNOWN

if TYPE_CHECKING:
    from tamis.evaluation.audit import AuditReport

MAX_COPIES_FRAC = 0.05
MAX_REPEATED_FRAC = 0.1
MAX_UNKNOWN_FRAC = 0.2
MAX_SOURCE_FRAC = 0.8
MIN_SEEN_FRAC = 0.9


class Finding(Settings):
    """One sentence; ``level`` "bad" asks for action, "look" for a look, "good" is in order."""

    level: Literal["bad", "look", "good"]
    text: str


def findings(report: "AuditReport") -> tuple[Finding, ...]:
    """Collect what the figures of an audit say, pressing ones first."""
    found = [*_duplicates(report), *_content(report), *_dates(report), *_target(report), *_slices(report)]
    if report.tokenizers:
        for row in report.tokenizers.rows:
            if row.advice:
                found.append(Finding(level="look", text=f"Tokenizer {row.name}: {row.advice}"))
    levels = ("bad", "look", "good")
    return tuple(sorted(found, key=lambda finding: levels.index(finding.level)))


def _percent(frac: float) -> str:
    return f"{100 * frac:.1f} %"


def _duplicates(report: "AuditReport") -> list[Finding]:
    facts, num_docs = report.facts.duplicates, report.facts.statistics.num_docs
    frac = facts.num_copies / max(1, num_docs)
    about = "about " if facts.counted_frac < 1 else ""
    text = f"{about}{facts.num_copies:,} documents ({_percent(frac)}) are exact copies of another"
    found = [Finding(level="bad" if frac > MAX_COPIES_FRAC else "look", text=f"{text}.".capitalize())]
    if not facts.num_copies:
        found = [Finding(level="good", text="No document is an exact copy of another.")]
    if report.near:
        frac = report.near.num_removable / max(1, num_docs)
        text = (
            f"{report.near.num_removable:,} documents ({_percent(frac)}) are near-duplicates of one that would be kept "
            f"(Jaccard {report.near.jaccard:g} and more)."
        )
        level: Literal["bad", "look", "good"] = "bad" if frac > MAX_COPIES_FRAC else "look" if frac else "good"
        found.append(Finding(level=level, text=text))
    return found


def _content(report: "AuditReport") -> list[Finding]:
    facts, found = report.facts, []
    lines = facts.sample.lines
    if lines.repeated_frac > MAX_REPEATED_FRAC:
        text = f"{_percent(lines.repeated_frac)} of the sampled text is lines that stand in three documents or more."
        found.append(Finding(level="look", text=text))
    unknown = next((row.frac for row in facts.languages if row.name == UNKNOWN), 0.0)
    if unknown > MAX_UNKNOWN_FRAC:
        text = f"The language of {_percent(unknown)} of the documents could not be told (short, lists, code, others)."
        found.append(Finding(level="look", text=text))
    if len(facts.sources) > 1:
        largest = max(facts.sources, key=lambda source: source.num_words)
        frac = largest.num_words / max(1, sum(source.num_words for source in facts.sources))
        if frac > MAX_SOURCE_FRAC:
            found.append(
                Finding(level="look", text=f"{_percent(frac)} of the words are from one source: {largest.name}.")
            )
    return found


def _dates(report: "AuditReport") -> list[Finding]:
    dates, found = report.facts.dates, []
    if dates.num_unreadable:
        text = f"{dates.num_unreadable:,} documents have a {dates.field!r} that is no ISO 8601 date."
        found.append(Finding(level="look", text=text))
    age = report.slices.age if report.slices else None
    if age:
        way = "before" if age.gap_days > 0 else "after"
        text = (
            f"The median document is {abs(age.gap_days):,} days {way} the median query; "
            f"{_percent(age.near_frac)} of the dated documents are within a year of it"
        )
        reason = f" (under {_percent(MIN_NEAR_FRAC)})" if age.near_frac < MIN_NEAR_FRAC else ""
        found.append(Finding(level="bad" if age.warned else "good", text=f"{text}{reason}."))
    return found


def _target(report: "AuditReport") -> list[Finding]:
    overlap = report.overlap
    if overlap is None:
        return []
    words = min(overlap.seen, key=lambda row: row.width)
    enough = words.seen_occurrences_frac >= MIN_SEEN_FRAC
    what = "words" if words.width == 1 else f"{words.width}-grams"
    share = _percent(words.seen_occurrences_frac)
    text = f"The pool holds {share} of the target's {what}; KL to the pool {overlap.kl_prior:.3f}."
    found = [Finding(level="good" if enough else "bad", text=text)]
    if overlap.num_copied:
        text = (
            f"{overlap.num_copied:,} of {overlap.num_target_docs:,} target documents stand in the pool letter for "
            "letter: selecting them is no evidence that selection works."
        )
        found.append(Finding(level="look", text=text))
    return found


def _slices(report: "AuditReport") -> list[Finding]:
    if report.slices is None:
        return []
    return [
        Finding(
            level="bad",
            text=f"The filters dropped {_percent(row.drop_frac)} of the documents with {row.kind} “{row.name}”, "
            f"{row.ratio:.1f} times the pool's rate.",
        )
        for row in report.slices.rows
        if row.flagged
    ]
