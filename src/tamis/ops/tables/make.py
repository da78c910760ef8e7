"""Makes the pinned Unicode tables: ``python -m tamis.ops.tables.make > src/tamis/ops/tables/unicode.zlib``.

Source: tamis design (method card K3). The file holds, compressed, the class of each code point of the
basic plane (uint8 [65536]) and what to add to it, modulo 65536, for its lower case (little-endian uint16
[65536]; differences, because they compress to a tenth).
"""

import re
import sys
import zlib

import numpy as np

SPACELESS = (
    (0x3005, 0x3007),  # ideographic iteration mark and zero
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0x1780, 0x17FF),  # Khmer
)
"""Scripts written without blanks: each word code point is a token of its own."""


def tables() -> tuple[np.ndarray, np.ndarray]:
    """Return classes uint8 [65536] and lower case uint16 [65536] from this interpreter's Unicode data."""
    classes = np.full(65536, 2, dtype=np.uint8)
    lowers = np.arange(65536, dtype=np.uint16)
    word, space = re.compile(r"\w"), re.compile(r"\s")
    for code in range(65536):
        if 0xD800 <= code <= 0xDFFF:
            continue
        char = chr(code)
        if space.match(char):
            classes[code] = 0
        elif word.match(char):
            classes[code] = 3 if any(a <= code <= b for a, b in SPACELESS) else 1
        lowers[code] = ord(char.lower()[0])
    return classes, lowers


if __name__ == "__main__":
    class_table, lower_table = tables()
    steps = (lower_table - np.arange(65536, dtype=np.uint16)).astype("<u2")
    sys.stdout.buffer.write(zlib.compress(class_table.tobytes() + steps.tobytes(), 9))
