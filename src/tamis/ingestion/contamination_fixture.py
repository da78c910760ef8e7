"""The self-test of decontamination: leaks with known answers in made-up prose, and what only looks like a leak.

Source: tamis, docs/log.md 2026-11-21, after the false positives and misses that others reported: leaks inside a
paragraph and wrapped at line ends; enacting clauses, quotations, exercise templates, formulas and licences.
All texts are made here, from word lists and sentence patterns; no text of others is in it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tamis.data.corpus import Corpus
from tamis.errors import UsageError
from tamis.ingestion.contamination import PROTECTED_SCHEMA, Protected
from tamis.ingestion.decontaminate import Decontaminate
from tamis.ops.hashing import uniform

TEXT = pa.large_string()
NUM_LONG = 200
NUM_SHORT = 69
NUM_HEADED = 40
NUM_TEMPLATE_DOCS = 40
NUM_FILLER_DOCS = 400
NUM_FILLERS = 1500
MIN_PRECISION = 0.95
MIN_RECALL = 0.9
SOURCES = ("letters", "reports", "notes")
WRAP_WORDS = 8
_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeiou])")


def _split(words: str, at: str = " ") -> list[str]:
    return words.split(at)


_NOUNS = _split(
    "anchor apple archive badge barley basket beacon bellows blanket boat bottle bridge bucket cabin candle "
    "canal carpet cart cellar chapel chimney clock coat compass copper cradle curtain dam desk donkey drum "
    "engine falcon ferry fiddle flask forge fountain furnace garden gate glove goose granary hammer harbour "
    "harness hedge helmet hinge honey inn island jacket kettle kiln ladder lantern ledger loom mill mirror "
    "needle oar orchard oven parcel pasture pebble pigeon plough pond pulley quarry raft ribbon saddle sail "
    "scarf shovel sieve signal spindle stable stove tavern thimble tower trumpet tunnel valley vessel wagon "
    "walnut weaver wheel whistle willow window"
)
_ADJECTIVES = _split(
    "ancient bitter blue bold brittle bronze careful cheap clumsy cold crooked curious damp distant double dull "
    "eager early empty faded famous fierce flat foreign fragile gentle green heavy hidden hollow honest humble "
    "iron jagged late lively lonely loud narrow nervous noisy odd orange pale patient plain proud quiet rare "
    "restless rough rusty second severe shallow sharp silver simple sleepy slow smooth solemn spare steep "
    "strange stubborn sudden tall tired upper vivid warm weary white wide wooden yellow young"
)
_VERBS = _split(
    "admired answered borrowed bought broke built buried carried chased cleaned counted covered crossed "
    "described discovered doubted drew emptied examined filled finished followed forgot found gathered guarded "
    "hid imagined inspected invented joined kept lifted locked measured mended missed moved noticed opened "
    "ordered packed painted polished praised pulled pushed recorded remembered repaired replaced returned "
    "sketched sold stored studied tested tied traded traced trusted turned visited washed weighed"
)
_ADVERBS = _split(
    "again almost alone already barely calmly carefully eagerly finally gladly hardly kindly later loudly never "
    "often once openly politely quickly quietly rarely sadly seldom slowly softly soon suddenly twice warmly"
)
_TIMES = _split(
    "after supper|at dawn|at noon|before the harvest|before winter|by candle light|during the flood|"
    "during the long strike|every other week|for nine days|in early spring|in the last hour|in the rain|"
    "on market day|on the eve of the fair|since the fire|until the bells rang|when the ice broke|"
    "when the wind fell|while the others slept",
    "|",
)
_HEADS = _split("Ab Bel Cor Dar El Fen Gar Hol Is Jor Kel Lan Mor Nor Ol Per Quil Ros Sel Tor Ul Ver Wes Yar Zan")
_TAILS = _split("a aby ada amir ander arth by den dis ek ell en ford ham ia ick ing is ley mere nor o ora stead vik")
_SENTENCES = (
    "{name} {verb} the {adj} {noun} near {place} {time}.",
    "{time}, the {noun} of {place} was {adverb} {verb} by {name} and a {adj} {noun}.",
    "Nobody in {place} {verb} a {adj} {noun}, but {name} {adverb} {verb} the {noun}.",
    "The {adj} {noun} and the {adj} {noun} {adverb} reached {place}, where {name} {verb} them.",
    "In {place} they say that {name} {verb} a {noun} {time} and {adverb} {verb} the {adj} one.",
    "When {name} {verb} the {noun}, {name} {adverb} {verb} the {adj} {noun} of {place}.",
    "A {adj} {noun} from {place} is worth more than a {adj} {noun}, as {name} {adverb} wrote.",
    "{name} of {place} kept {number} {adj} letters about the {noun} that {name} {verb} {time}.",
    "It was {number} miles to {place}, so {name} {verb} the {noun} and {adverb} {verb} the {adj} {noun}.",
    "Whoever {verb} the {adj} {noun} of {name} had {adverb} {verb} {number} others in {place}.",
)
_QUESTIONS = (
    "Why did {name} hide the {adj} {noun} at {place}?",
    "Who in {place} {verb} the {adj} {noun} before {name} arrived?",
    "Which {adj} {noun} was {verb} by {name} near {place}?",
    "How far is {place} from the {adj} {noun} of {name}?",
    "What happened to {name} and the {adj} {noun} in {place}?",
)
_TEMPLATES = {
    "enacting_clause": (
        "Be it decided by the assembled council, with the consent of both chambers and by the authority that the "
        "charter of this land has given them, that the articles that follow shall have force in {place}."
    ),
    "quotation": (
        "Who counts the stars by day will have no lamp when the night asks for one, and who counts the lamps by "
        "night will find that the morning has no use for them, said the miller to {name}."
    ),
    "exercise_template": (
        "Read the passage above with care, answer in whole sentences, and give one reason from the text for each of "
        "your answers: what did {name} think of the {noun}?"
    ),
    "formula": (
        "For a triangle with a right angle the square of the longest side equals the sum of the squares of the other "
        "two, a^2 + b^2 = c^2, where a and b are the legs and c is opposite the angle at {place}."
    ),
    "licence_notice": (
        "This work may be copied and passed on in any form, changed or not, as long as this notice stays with it; it "
        "comes without any promise, and nobody who helped {name} to make it answers for harm that follows from it."
    ),
}
_HEADED = (
    "Study the notes on the board, discuss them with a partner, and write your own answer to the question below. {}"
)


@dataclass(frozen=True)
class Fixture:
    """Documents, what is protected, and the truth: doc_id, family, is_contaminated, is_counted.

    Families that are not counted show the limits of n-grams (edited copies, parts); they are reported alone.
    """

    corpus: Corpus
    protected: Protected
    labels: pa.Table


@dataclass(frozen=True)
class SelfTest:
    """Precision and recall over the counted families, the same for random flags at the same rate, and each family."""

    precision: float
    recall: float
    control_precision: float
    control_recall: float
    families: pa.Table  # family, is_contaminated, is_counted, num_docs, num_flagged

    @property
    def passed(self) -> bool:
        """Whether precision and recall reach MIN_PRECISION and MIN_RECALL."""
        return self.precision >= MIN_PRECISION and self.recall >= MIN_RECALL


class Prose:
    """Sentences from patterns and word lists: about 10^10 different ones, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        """Start the draws of ``seed``."""
        self._units = self._draw(seed)

    @staticmethod
    def _draw(seed: int) -> Iterator[float]:
        start = 0
        while True:
            yield from uniform(np.arange(start, start + 4096, dtype=np.uint64), seed, "fixture").tolist()
            start += 4096

    def number(self, below: int) -> int:
        """Return an integer in [0, below)."""
        return int(next(self._units) * below)

    def pick(self, values: Sequence[str]) -> str:
        """Return one of the values."""
        return values[self.number(len(values))]

    def fill(self, pattern: str) -> str:
        """Fill each slot of a pattern on its own draw."""
        made = []
        for part in pattern.split("{"):
            slot, closed, rest = part.partition("}")
            made.append(self._word(slot) + rest if closed else part)
        text = _BEFORE_VOWEL.sub(r"\1n ", "".join(made))
        return text[0].upper() + text[1:]

    def _word(self, slot: str) -> str:
        if slot in {"name", "place"}:
            return (
                self.pick(_HEADS) + self.pick(_TAILS) + (self.pick(("", "", "ton", "mouth")) if slot == "place" else "")
            )
        if slot == "number":
            return str(2 + self.number(97))
        return self.pick({"noun": _NOUNS, "adj": _ADJECTIVES, "verb": _VERBS, "adverb": _ADVERBS, "time": _TIMES}[slot])

    def paragraph(self, min_words: int, max_words: int) -> str:
        """Return whole sentences of min_words to about max_words words."""
        text, wanted = self.fill(self.pick(_SENTENCES)), min_words + self.number(max_words - min_words)
        while len(text.split()) < wanted:
            text += " " + self.fill(self.pick(_SENTENCES))
        return text


def generate(seed: int) -> Fixture:
    """Make the fixture from generated prose alone. About a second; about 2 MB of text."""
    prose = Prose(seed)
    fillers = [prose.paragraph(15, 50) for _ in range(NUM_FILLERS)]
    long = [prose.paragraph(13, 40) for _ in range(NUM_LONG)]
    short: list[str] = []
    while len(short) < NUM_SHORT:
        question = prose.fill(prose.pick(_QUESTIONS))
        if 8 <= len(question.split()) <= 12:
            short.append(question)
    return build(long, short, fillers, seed=seed)


def build(long: Sequence[str], short: Sequence[str], fillers: Sequence[str], *, seed: int) -> Fixture:
    """Make the fixture around given texts.

    Args:
      long: items of at least 13 words, none of them in a filler.
      short: items of 8 to 12 words.
      fillers: clean paragraphs.
      seed: of which filler goes where.

    Raises:
      UsageError: no items or fewer than 8 fillers.
    """
    if not long or not short or len(fillers) < 8:
        raise UsageError(
            f"contamination fixture: {len(long)} long items, {len(short)} short ones, {len(fillers)} fillers. "
            f"Give at least one of each and 8 fillers."
        )
    prose = Prose(seed ^ 0x5EED)
    docs: list[tuple[str, bool, bool, str]] = []  # family, is contaminated, is counted, text
    for length, items in (("long", long), ("short", short)):
        for form, place in _FORMS.items():
            docs += [(f"{length}_{form}", True, True, place(prose, item, fillers)) for item in items]
    headed = [_HEADED.format(prose.paragraph(30, 40)) for _ in range(NUM_HEADED)]
    docs += [("headed_inline", True, True, _inline(prose, item, fillers)) for item in headed]
    docs += [("long_edited", True, False, _inline(prose, _edited(prose, item), fillers)) for item in long]
    docs += [("long_part", True, False, _inline(prose, _part(item, 0.7), fillers)) for item in long]
    docs += [("long_fragment", False, False, _inline(prose, _part(item, 0.3), fillers)) for item in long]
    instances = []
    for family, pattern in _TEMPLATES.items():
        instances.append(prose.fill(pattern))
        for _ in range(NUM_TEMPLATE_DOCS):
            docs.append((family, False, True, _paragraph(prose, prose.fill(pattern), fillers)))
    docs += [("filler", False, True, "\n\n".join(_some(prose, fillers, 7))) for _ in range(NUM_FILLER_DOCS)]
    families, contaminated, counted, texts = (list(column) for column in zip(*docs, strict=True))
    ids = [f"{family}-{i:05d}" for i, family in enumerate(families)]
    # What is not counted has a source of its own: its copies would make the counted leaks common.
    sources = [prose.pick(SOURCES) if is_counted else "drafts" for is_counted in counted]
    corpus = Corpus.from_table(pa.table({"doc_id": ids, "text": pa.array(texts, TEXT), "source": sources}))
    items = [*long, *short, *headed, *instances]
    item_ids = [f"item-{i:04d}" for i in range(len(items))]
    protected = Protected(pa.table([item_ids, ["query"] * len(items), items], schema=PROTECTED_SCHEMA))
    labels = {"doc_id": ids, "family": families, "is_contaminated": contaminated, "is_counted": counted}
    return Fixture(corpus, protected, pa.table(labels))


def self_test(method: Decontaminate, *, seed: int, fixture: Fixture | None = None) -> SelfTest:
    """Measure a method's settings on the fixture of a seed, or on a given one. A few seconds."""
    fixture = fixture or generate(seed)
    flags = method.find(fixture.corpus, seed=seed, protect=fixture.protected).is_contaminated
    return judge(flags, fixture, seed=seed)


def judge(flags: np.ndarray, fixture: Fixture, *, seed: int) -> SelfTest:
    """Compare flags, bool [n] a document of the fixture, with the truth and with as many random flags."""
    labels = fixture.labels
    truth, counted = (np.asarray(labels[name].to_numpy(), bool) for name in ("is_contaminated", "is_counted"))
    draws = uniform(np.arange(len(labels), dtype=np.uint64), ~seed, "fixture")
    control = np.zeros(len(labels), bool)
    among = np.flatnonzero(counted)
    control[among[np.argsort(draws[among])][: int(flags[counted].sum())]] = True

    def rates(flagged: np.ndarray) -> tuple[float, float]:
        right = int((flagged & truth & counted).sum())
        return right / max(1, int((flagged & counted).sum())), right / max(1, int((truth & counted).sum()))

    table = labels.append_column("flag", pa.array(flags.astype(np.int64)))
    groups = table.group_by(["family", "is_contaminated", "is_counted"], use_threads=False)
    families = groups.aggregate([("flag", "count"), ("flag", "sum")])
    families = families.rename_columns(["family", "is_contaminated", "is_counted", "num_docs", "num_flagged"])
    return SelfTest(*rates(flags), *rates(control), families)


def _some(prose: Prose, fillers: Sequence[str], count: int) -> list[str]:
    return [prose.pick(fillers) for _ in range(count)]


def _verbatim(prose: Prose, item: str, fillers: Sequence[str]) -> str:
    return item


def _paragraph(prose: Prose, item: str, fillers: Sequence[str]) -> str:
    return "\n\n".join([*_some(prose, fillers, 3), item, *_some(prose, fillers, 3)])


def _wrapped(prose: Prose, item: str, fillers: Sequence[str]) -> str:
    words = item.split()
    lines = [" ".join(words[i : i + WRAP_WORDS]) for i in range(0, len(words), WRAP_WORDS)]
    return _paragraph(prose, "\n".join(lines), fillers)


def _inline(prose: Prose, item: str, fillers: Sequence[str]) -> str:
    return _paragraph(prose, " ".join([*_some(prose, fillers, 1), item, *_some(prose, fillers, 1)]), fillers)


_FORMS: dict[str, Callable[[Prose, str, Sequence[str]], str]] = {
    "verbatim": _verbatim,
    "paragraph": _paragraph,
    "wrapped": _wrapped,
    "inline": _inline,
}


def _edited(prose: Prose, item: str) -> str:
    """Replace one word in eight."""
    words = item.split()
    for i in range(prose.number(8), len(words), 8):
        words[i] = prose.pick(_NOUNS)
    return " ".join(words)


def _part(item: str, share: float) -> str:
    """Return the first share of the words."""
    words = item.split()
    return " ".join(words[: round(share * len(words))])
