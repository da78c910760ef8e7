"""StaticSVD: an encoder made from a corpus alone, in seconds, without labels, downloads or torch.

Source: tamis (method card G); parts from Deerwester et al. 1990 and Dumais 1991 (LSA, log-entropy), BM25's tf,
Achlioptas 2003 (random signs), Contriever's crops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tamis.data import Corpus
from tamis.data.settings import Settings
from tamis.errors import DataError
from tamis.ops.hashing import draws, splitmix64, text_keys
from tamis.ops.language import LANGUAGES, stop_words

if TYPE_CHECKING:
    from scipy import sparse
    from tokenizers import Tokenizer

    from tamis.models import Encoder, StaticEncoder
    from tamis.training.pretrain.refine import Texts
    from tamis.training.pretrain.words import Words

Language = Literal[
    "english", "danish", "dutch", "french", "german", "italian",
    "norwegian", "portuguese", "russian", "spanish", "swedish", "turkish",
]  # fmt: skip
_LEXICAL_SHARE = 0.5
_RARE_DOCS = 20


@dataclass(frozen=True)
class Pretrained:
    """An encoder and how it came about.

    Attributes:
      encoder: the encoder.
      report: figures of the fit, JSON values: sizes, what was left out, what refinement did.
    """

    encoder: "StaticEncoder"
    report: dict[str, Any]

    def counts(self) -> dict[str, int]:
        """Return the whole numbers of the report."""
        return {name: int(value) for name, value in self.report.items() if isinstance(value, int)}


class StaticSVD(Settings):
    """Singular vectors of the weighted document-term matrix as a token table; a text is the mean of its tokens.

    Words of two documents or more have a row, shared by all forms of a stem; rarer and unseen words are
    made of pieces. Fitted on at most 200,000 documents drawn by their content.

    Attributes:
      dim: width of the vectors; less when the corpus has fewer directions.
      num_pieces: pieces for rare words.
      min_df: documents a word must be in to have a row and a weight; 1 below twenty documents.
      stemmer: language whose word forms share a row, or None.
      stopwords: language whose function words weigh nothing, or None.
      lexical_dim: width of an exact-word part of random signs put beside the vectors; 768 when no BM25 runs
        beside the encoder, else 0.
      refine_epochs: rounds of contrastive refinement on crops; 0 for none.
      refine_lr: its learning rate at the start; .01 already loses quality.
    """

    method: Literal["static_svd"] = "static_svd"
    dim: Annotated[int, Field(ge=1, le=4096)] = 256
    num_pieces: Annotated[int, Field(ge=1, le=100_000)] = 2000
    min_df: Annotated[int, Field(ge=1)] = 2
    stemmer: Language | None = "english"
    stopwords: Language | None = "english"
    lexical_dim: Annotated[int, Field(ge=0, le=8192)] = 0
    refine_epochs: Annotated[int, Field(ge=0, le=100)] = 3
    refine_lr: Annotated[float, Field(ge=0, le=1)] = 1e-3

    def in_language(self, language: str | None) -> "StaticSVD":
        """Return the method for a corpus in another language; None, or one without resources, uses none.

        A stemmer or stop list that is switched off stays off.
        """
        known = language if language in LANGUAGES else None
        changes = {name: known for name in ("stemmer", "stopwords") if getattr(self, name) is not None}
        return StaticSVD(**{**self.model_dump(), **changes})

    def pretrain(
        self,
        encoder: "Encoder | None",
        corpus: Corpus,
        *,
        seed: int,
        pairs: Sequence[tuple[str, str]] | None = None,
    ) -> Pretrained:
        """Make an encoder from a corpus. O(characters + nonzeros·dim) time; the order of documents does not matter.

        Args:
          encoder: unused; every pre-training method takes it.
          corpus: the documents; title and text are read.
          seed: of the sample, the projection and the crops.
          pairs: texts that mean the same, refined on in place of crops of the documents.

        Returns:
          The encoder and a report of the fit.

        Raises:
          DataError: the corpus has no documents.
        """
        from threadpoolctl import threadpool_limits

        from tamis.models import StaticEncoder
        from tamis.training.pretrain import vocabulary
        from tamis.training.pretrain.refine import Texts, refine
        from tamis.training.pretrain.words import read_words

        if not len(corpus):
            raise DataError("no documents to learn an encoder from. Give a corpus with at least one.")
        words = read_words(corpus, seed=seed)
        tokenizer, groups_V, num_words = self._tokenizer(words)
        segments_WG = vocabulary.segment(words.vocabulary, tokenizer, groups_V)
        texts = Texts(words.flat, words.offsets, segments_WG)
        given = None if pairs is None else _bags_of_pairs(pairs, tokenizer, groups_V, segments_WG.shape[1])
        # The last bits of a matrix product depend on the number of threads; the encoder's bytes must not.
        with threadpool_limits(1, user_api="blas"):
            table_GH, idf_G = self._decompose(words, segments_WG, seed)
            num_svd = table_GH.shape[1]
            table_GH, guard = refine(
                table_GH, texts, epochs=self.refine_epochs, lr=self.refine_lr, seed=seed, pairs=given
            )
            if self.lexical_dim:
                table_GH = self._dual(table_GH, texts, idf_G, _group_names(tokenizer, groups_V), seed)
        report = {
            "documents": words.num_docs,
            "documents_fitted": len(words),
            "documents_duplicate": words.num_duplicates,
            "words": num_words,
            "words_in_pieces": len(words.vocabulary) - num_words,
            "tokens": len(groups_V),
            "groups": int(segments_WG.shape[1]),
            "dim": int(num_svd),
            "lexical_dim": self.lexical_dim,
            **guard.facts(),
        }
        return Pretrained(StaticEncoder(_by_token(table_GH, groups_V), tokenizer), report)

    def _min_df(self, num_docs: int) -> int:
        """Below twenty documents a word in one of them is no accident of spelling: it is most of what there is."""
        return 1 if num_docs < _RARE_DOCS else self.min_df

    def _tokenizer(self, words: "Words") -> tuple["Tokenizer", np.ndarray, int]:
        """Return the tokenizer, int32 [V] groups of its tokens, and the number of words with a token (step 1, 2)."""
        from tamis.training.pretrain import vocabulary

        df_W = np.bincount(words.matrix.indices, minlength=len(words.vocabulary))
        frequent = np.flatnonzero(df_W >= self._min_df(len(words))).tolist()
        known = [w for w in map(words.vocabulary.__getitem__, frequent) if len(w) <= vocabulary.MAX_WORD_CHARS]
        known = known[: vocabulary.MAX_WORDS]
        pieces = vocabulary.train_pieces(words.vocabulary, words.counts, self.num_pieces)
        tokenizer = vocabulary.make_tokenizer(known, pieces)
        ids = tokenizer.get_vocab()
        tokens = sorted(ids, key=ids.__getitem__)
        stop = _stop_words(self.stopwords) if self.stopwords else frozenset()
        return tokenizer, vocabulary.tie(tokens, known, self.stemmer, stop), len(known)

    def _decompose(self, words: "Words", segments_WG: "sparse.csr_array", seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the table of the groups, float32 [G, H], and BM25's idf of each, float64 [G] (steps 3, 4)."""
        from tamis.training.pretrain import spectral

        counts_DG = words.matrix @ segments_WG
        counts_DG.sort_indices()
        weights_G = spectral.log_entropy(counts_DG, min_df=self._min_df(len(words)))
        weighted = spectral.bm25_tf(counts_DG)
        weighted.data *= weights_G[weighted.indices].astype(np.float32)
        weighted.eliminate_zeros()
        _, V_GH = spectral.right_singular_vectors(weighted, self.dim, seed=seed)
        if not V_GH.shape[1]:
            V_GH = np.zeros((len(weights_G), 1), dtype=np.float32)  # no word has a weight: all vectors are zero
        df_G = np.bincount(counts_DG.indices, minlength=len(weights_G))
        idf_G = np.log(1 + (len(words) - df_G + 0.5) / (df_G + 0.5))
        return V_GH * weights_G[:, None].astype(np.float32), np.where(df_G > 0, idf_G, 0)

    def _dual(
        self, table_GH: np.ndarray, texts: "Texts", idf_G: np.ndarray, names: Sequence[str], seed: int
    ) -> np.ndarray:
        """Return [table / a ; .5 idf signs / b], a and b the halves' mean norms over documents (step 6)."""
        signs_GM = random_signs(names, self.lexical_dim, seed=seed)
        lexical_GM = (signs_GM * idf_G[:, None]).astype(np.float32)
        bags_DG = texts.whole(np.arange(len(texts)))
        halves = []
        for half, share in ((table_GH, 1.0), (lexical_GM, _LEXICAL_SHARE)):
            total, rows = 0.0, max(1, bags_DG.shape[0])
            for start in range(0, rows, 4096):
                block = bags_DG[start : start + 4096]
                lengths = np.maximum(block.sum(axis=1), 1)
                total += float((np.linalg.norm(block @ half, axis=1) / lengths).sum())
            halves.append(half * np.float32(share * rows / total) if total else half)
        return np.hstack(halves)


def random_signs(names: Sequence[str], width: int, *, seed: int) -> np.ndarray:
    """Return float32 [G, M]: +-1/sqrt(M), a row set by its name and the seed alone."""
    keys_G = text_keys(names)
    numbers = splitmix64(np.arange(-(-width // 64), dtype=np.uint64))
    bits = draws(keys_G[:, None] ^ numbers[None, :], seed, "table").astype("<u8")
    ones_GM = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :width]
    return (ones_GM.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(width))


def _group_names(tokenizer: "Tokenizer", groups_V: np.ndarray) -> list[str]:
    """Return the first token of each group."""
    found, first = np.unique(groups_V, return_index=True)
    return [str(tokenizer.id_to_token(int(row))) for row in first[found >= 0]]


def _stop_words(language: str) -> frozenset[str]:
    """Return a language's function words as the tokenizer sees them."""
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    from tamis.training.pretrain.vocabulary import normalizer

    normalize = normalizer().normalize_str
    words = stop_words(language) | (frozenset(STOPWORDS_EN_PLUS) if language == "english" else frozenset())
    return frozenset(normalize(word) for word in words)


def _by_token(table_GH: np.ndarray, groups_V: np.ndarray) -> np.ndarray:
    """Return float32 [V, H]: each token has the row of its group, zeros where it has none."""
    table_VH = np.zeros((len(groups_V), table_GH.shape[1]), dtype=np.float32)
    table_VH[groups_V >= 0] = table_GH[groups_V[groups_V >= 0]]
    return table_VH


def _bags_of_pairs(
    pairs: Sequence[tuple[str, str]], tokenizer: "Tokenizer", groups_V: np.ndarray, num_groups: int
) -> tuple["sparse.csr_array", "sparse.csr_array"]:
    """Return float32 [P, G] group counts of both sides."""
    from tamis.training.pretrain.words import bags

    sides = []
    for texts in ([left for left, _ in pairs], [right for _, right in pairs]):
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        rows = [groups_V[np.array(e.ids, dtype=np.int64)] for e in encoded]
        rows = [row[row >= 0] for row in rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        sides.append(bags(np.concatenate([np.empty(0, np.int32), *rows]), offsets, num_groups))
    return sides[0], sides[1]
