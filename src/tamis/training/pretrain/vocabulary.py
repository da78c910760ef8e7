"""A tokenizer of a corpus's own words, with pieces for the rare ones; equal words give equal bytes.

Source: tamis (method card G, step 1); pieces by Sennrich et al. 2016, BPE, arXiv:1508.07909; matching by
Song et al. 2021, WordPiece, arXiv:2012.15524. The WordPiece trainer of the library is not reproducible, BPE is.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse
    from tokenizers import Tokenizer, normalizers

UNKNOWN = "[UNK]"
MAX_WORD_CHARS = 100
"""Longer words are unknown: matching pieces costs the square of the length."""
MAX_WORDS = 100_000
"""Words with a row of their own, the most frequent first; the others are made of pieces."""
_MAX_TRAINING_WORDS = 20_000_000
_CHUNK_WORDS = 10_000


def normalizer() -> "normalizers.Normalizer":
    """Return NFKC, lower case, accents stripped; what stripping took apart is joined again (Hangul)."""
    from tokenizers import normalizers as n

    return n.Sequence([n.NFKC(), n.Lowercase(), n.NFD(), n.StripAccents(), n.NFC()])


def train_pieces(vocabulary: Sequence[str], counts: np.ndarray, num_pieces: int) -> list[str]:
    """Train BPE on words with their counts and return its pieces, sorted by code points.

    Args:
      vocabulary: distinct words [W].
      counts: int [W] occurrences; scaled down together when they exceed 20 million.
      num_pieces: pieces wanted; the alphabet is always whole.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    total = int(counts.sum())
    factor = min(1.0, _MAX_TRAINING_WORDS / total) if total else 1.0
    repeats = np.ceil(counts * factor).astype(np.int64).tolist()

    def texts() -> Iterator[str]:
        for word, times in zip(vocabulary, repeats, strict=True):
            if len(word) <= MAX_WORD_CHARS:
                yield f"{word} " * times

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=num_pieces, min_frequency=2, show_progress=False, special_tokens=[])
    tokenizer.train_from_iterator(texts(), trainer)
    return sorted(tokenizer.get_vocab())


def make_tokenizer(words: Sequence[str], pieces: Sequence[str]) -> "Tokenizer":
    """Return a WordPiece tokenizer: [UNK], then the words, then each piece p as "p" and as "##p"."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokens = dict.fromkeys([UNKNOWN, *words, *pieces, *(f"##{piece}" for piece in pieces)])
    model = models.WordPiece(
        vocab={token: row for row, token in enumerate(tokens)},
        unk_token=UNKNOWN,
        max_input_chars_per_word=MAX_WORD_CHARS,
        continuing_subword_prefix="##",
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), behavior="removed")
    return tokenizer


def tie(tokens: Sequence[str], words: Sequence[str], stemmer: str | None, stop: frozenset[str]) -> np.ndarray:
    """Return int32 [V]: group of each token. Words of one stem share a group, a piece has its own.

    Args:
      tokens: the tokenizer's vocabulary in order of its ids.
      words: those of them that are words of the corpus.
      stemmer: language of the Snowball stemmer; None ties nothing.
      stop: words that weigh nothing; they, and the unknown token, have group -1.
    """
    import Stemmer

    stems = dict(zip(words, Stemmer.Stemmer(stemmer).stemWords(list(words)) if stemmer else words, strict=True))
    group_of: dict[tuple[bool, str], int] = {}
    groups = np.full(len(tokens), -1, dtype=np.int32)
    for row, token in enumerate(tokens):
        if token == UNKNOWN or token in stop:
            continue
        key = (True, stems[token]) if token in stems else (False, token)
        groups[row] = group_of.setdefault(key, len(group_of))
    return groups


def segment(vocabulary: Sequence[str], tokenizer: "Tokenizer", groups: np.ndarray) -> "sparse.csr_array":
    """Return float32 [W, G]: how often each group occurs in each word as the tokenizer cuts it."""
    from tamis.training.pretrain.words import bags

    lengths = np.zeros(len(vocabulary) + 1, dtype=np.int32)
    parts = [np.empty(0, np.int32)]
    for start in range(0, len(vocabulary), _CHUNK_WORDS):
        chunk = list(vocabulary[start : start + _CHUNK_WORDS])
        for row, encoding in enumerate(tokenizer.encode_batch_fast(chunk, add_special_tokens=False), start + 1):
            ids = groups[encoding.ids] if encoding.ids else parts[0]
            parts.append(ids[ids >= 0])
            lengths[row] = len(parts[-1])
    return bags(np.concatenate(parts), np.cumsum(lengths, dtype=np.int32), int(groups.max(initial=-1)) + 1)
