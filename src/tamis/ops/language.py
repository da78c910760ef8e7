"""Which language a corpus, or a document, is in: by the shares of known stop words, never a guess on thin evidence.

Source: tamis (method card K8 for documents); the lists are those of bm25s.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
import pyarrow as pa

from tamis.ops.bytes import Texts, character_tables, text_buffers, token_hashes

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
UNKNOWN = "und"
MIN_DOCUMENT_SHARE = 0.05
"""Of a document's words on its language's list; lists, code and names stay below."""
MIN_DOCUMENT_WORDS = 50
_LISTS = {
    "da": ("DANISH",),
    "de": ("GERMAN",),
    "en": ("EN", "EN_PLUS"),
    "es": ("SPANISH",),
    "fr": ("FRENCH",),
    "it": ("ITALIAN",),
    "nl": ("DUTCH",),
    "no": ("NORWEGIAN",),
    "pt": ("PORTUGUESE",),
    "ru": ("RUSSIAN",),
    "sv": ("SWEDISH",),
    "tr": ("TURKISH",),
    "zh": ("CHINESE",),
}
_SCRIPTS = {
    "Latn": ((0x41, 0x24F), (0x1E00, 0x1EFF), (0xFF21, 0xFF5A)),
    "Grek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrl": ((0x400, 0x52F),),
    "Armn": ((0x530, 0x58F),),
    "Hebr": ((0x590, 0x5FF),),
    "Arab": ((0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "Deva": ((0x900, 0x97F),),
    "Beng": ((0x980, 0x9FF),),
    "Taml": ((0xB80, 0xBFF),),
    "Telu": ((0xC00, 0xC7F),),
    "Thai": ((0xE00, 0xE7F),),
    "Laoo": ((0xE80, 0xEFF),),
    "Mymr": ((0x1000, 0x109F),),
    "Geor": ((0x10A0, 0x10FF),),
    "Khmr": ((0x1780, 0x17FF),),
    "Jpan": ((0x3041, 0x30FF), (0x31F0, 0x31FF)),  # kana
    "Kore": ((0x1100, 0x11FF), (0xAC00, 0xD7A3)),
    "Hani": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
}
_SPOKEN = {"Jpan": "ja", "Kore": "ko", "Thai": "th", "Grek": "el", "Geor": "ka", "Armn": "hy", "Laoo": "lo"}
"""Languages that their script tells."""
_MIN_KANA_SHARE = 0.1


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


def document_languages(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """Return the language and the script of each text. About 150 MB/s a core.

    The script has most of the letters; the language most of its words on its stop-word list, or is told by the
    script. It is UNKNOWN under MIN_DOCUMENT_WORDS words or MIN_DOCUMENT_SHARE stop words: lists, code, short texts.

    Args:
      texts: n strings; null is empty.

    Returns:
      ISO 639-1 codes or "und", and ISO 15924 codes or "Zyyy" (no letter), both str [n]. Japanese is "Jpan": a tenth
      of the letters are kana and the rest Chinese characters.
    """
    from tamis.ops import statistics_kernels

    data, offsets = text_buffers(texts)
    counts, words = statistics_kernels.stop_word_counts(data, offsets, *character_tables(), *_stop_table(), len(_LISTS))
    letters = statistics_kernels.script_counts(data, offsets, character_tables()[0], *_script_ranges(), len(_SCRIPTS))
    names = list(_SCRIPTS)
    kana, han = letters[:, names.index("Jpan")], letters[:, names.index("Hani")]
    is_japanese = (kana > 0) & (kana >= _MIN_KANA_SHARE * (kana + han))
    letters[is_japanese, names.index("Jpan")] += han[is_japanese]
    letters[is_japanese, names.index("Hani")] = 0
    scripts = np.array(names)[letters.argmax(axis=1)] if len(letters) else np.zeros(0, "U4")
    scripts = np.where(letters.sum(axis=1) > 0, scripts, "Zyyy")
    best = counts.argmax(axis=1)
    shares = counts.max(axis=1, initial=0) / np.maximum(words, 1)
    languages = np.where(shares >= MIN_DOCUMENT_SHARE, np.array(list(_LISTS))[best], UNKNOWN)
    for script, language in _SPOKEN.items():
        languages[scripts == script] = language
    languages[words < MIN_DOCUMENT_WORDS] = UNKNOWN
    return languages, scripts


@cache
def _stop_table() -> tuple[np.ndarray, np.ndarray]:
    """Return an open table of the token hashes of all stop words that are one token, and the bits of their lists."""
    from bm25s import stopwords

    bits: dict[int, int] = {}
    for number, lists in enumerate(_LISTS.values()):
        words = sorted({word for name in lists for word in getattr(stopwords, f"STOPWORDS_{name}")})
        words = [word for word in words if len(word) > 1 or not word.isascii()]  # code is full of single letters
        hashes, starts = token_hashes(pa.array(words, pa.large_string()))
        for at in np.flatnonzero(np.diff(starts) == 1).tolist():
            key = int(hashes[starts[at]])
            bits[key] = bits.get(key, 0) | 1 << number
    size = 1 << (4 * len(bits)).bit_length()
    keys, lists_of = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for key, value in bits.items():
        slot = key >> 20 & size - 1
        while keys[slot]:
            slot = (slot + 1) & size - 1
        keys[slot], lists_of[slot] = key, value
    return keys, lists_of


@cache
def _script_ranges() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ranges = sorted((low, high, number) for number, found in enumerate(_SCRIPTS.values()) for low, high in found)
    starts, stops, scripts = (np.array(column, dtype=np.int64) for column in zip(*ranges, strict=True))
    return starts, stops, scripts
