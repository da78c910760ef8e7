"""Which stemmer and stop words fit a corpus: by the shares of known stop words, never a guess on thin evidence.

Source: tamis; the lists are those of bm25s (twelve languages).
"""

from collections.abc import Iterable

LANGUAGES = {
    "english": "EN",
    "danish": "DANISH",
    "dutch": "DUTCH",
    "french": "FRENCH",
    "german": "GERMAN",
    "italian": "ITALIAN",
    "norwegian": "NORWEGIAN",
    "portuguese": "PORTUGUESE",
    "russian": "RUSSIAN",
    "spanish": "SPANISH",
    "swedish": "SWEDISH",
    "turkish": "TURKISH",
}
MIN_SHARE = 0.1
"""Running text has a quarter to a half of its words on its language's list; below this it is none of the twelve."""
MIN_LATIN_SHARE = 0.9
"""Without running text (code, catalogues) English is taken where this share of the letters is plain Latin."""
_SAMPLE_CHARS = 2_000_000


def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of a language of LANGUAGES."""
    from bm25s import stopwords

    return frozenset(getattr(stopwords, f"STOPWORDS_{LANGUAGES[language]}"))


def dominant_language(texts: Iterable[str]) -> str | None:
    """Return the language of LANGUAGES that most of the text is in, or None for a neutral analysis.

    Reads at most two million characters. Code and lists in plain Latin letters count as English.
    """
    words: list[str] = []
    letters = latin = num_chars = 0
    for text in texts:
        lowered = text.lower()
        words += lowered.split()
        letters += sum(map(str.isalpha, lowered))
        latin += sum(1 for c in lowered if "a" <= c <= "z")
        num_chars += len(text)
        if num_chars > _SAMPLE_CHARS:
            break
    if not words:
        return None
    shares = {name: sum(map(stop_words(name).__contains__, words)) / len(words) for name in LANGUAGES}
    best = max(shares, key=lambda name: (shares[name], name == "english"))
    if shares[best] >= MIN_SHARE:
        return best
    return "english" if letters and latin / letters >= MIN_LATIN_SHARE and best == "english" else None
