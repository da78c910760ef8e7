"""Term weights and truncated singular vectors of a document-term matrix.

Source: Deerwester et al. 1990 and Dumais 1991 (latent semantic analysis, log-entropy); Robertson and Zaragoza 2009
(BM25 tf); Halko, Martinsson, Tropp 2011, arXiv:0909.4061 (randomised subspace iteration).
"""

import numpy as np
from scipy import sparse

K1, B = 1.2, 0.75
_OVERSAMPLES = 16
_ITERATIONS = 4
_BLOCK_DOCS = 32_768
_MIN_SINGULAR = 1e-4
"""Directions below this fraction of the first singular value are rounding, not content."""


def bm25_tf(counts_DG: sparse.csr_array) -> sparse.csr_array:
    """Return counts with BM25's saturation, k1 1.2 and b .75. O(nnz).

    Of a document of average length a count of 3 becomes 1.57143, of one twice as long 1.29412.
    """
    lengths_D = counts_DG.sum(axis=1)
    norm_D = K1 * (1 - B + B * lengths_D / max(lengths_D.mean(), 1e-9))
    norms = np.repeat(norm_D, np.diff(counts_DG.indptr))
    data = counts_DG.data * (K1 + 1) / (counts_DG.data + norms)
    return sparse.csr_array((data.astype(np.float32), counts_DG.indices, counts_DG.indptr), shape=counts_DG.shape)


def log_entropy(counts_DG: sparse.csr_array, *, min_df: int) -> np.ndarray:
    """Return float64 [G]: 1 + sum_d p ln p / ln D, p a document's share of a term's occurrences.

    Counts (3, 1) in two documents weigh .18872, (2, 2) 0, (4, 0) 1. Terms in fewer than ``min_df`` documents
    weigh 0; with one document every term weighs 1. O(nnz).
    """
    num_docs, num_terms = counts_DG.shape
    totals = np.bincount(counts_DG.indices, counts_DG.data, num_terms)
    information = np.bincount(counts_DG.indices, counts_DG.data * np.log(counts_DG.data), num_terms)
    df = np.bincount(counts_DG.indices, minlength=num_terms)
    # sum p ln p = (sum c ln c) / total - ln total
    safe = np.maximum(totals, 1)
    weights = 1 + (information / safe - np.log(safe)) / (np.log(num_docs) if num_docs > 1 else np.inf)
    weights[(df < min_df) | (weights < 1e-9)] = 0
    return np.asarray(weights)


def right_singular_vectors(Y_DG: sparse.csr_array, dim: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading singular values (float64 [H], falling) and right singular vectors (float32 [G, H]).

    H is ``dim`` or the matrix's numerical rank, whichever is less. The largest entry of each vector is
    positive. O(nnz·dim) time for each of six passes; memory G·dim plus one block of documents.
    """
    num_docs, num_terms = Y_DG.shape
    width = min(dim + _OVERSAMPLES, num_docs, num_terms)
    if not width or not Y_DG.nnz:
        return np.empty(0), np.empty((num_terms, 0), dtype=np.float32)
    Y_DG = Y_DG.astype(np.float32)
    Q_GK = np.random.default_rng(seed).standard_normal((num_terms, width), dtype=np.float32)
    for _ in range(_ITERATIONS + 1):
        Z_GK = np.zeros_like(Q_GK)
        for block in _blocks(Y_DG):
            Z_GK += block.T @ (block @ Q_GK)
        Q_GK, _ = np.linalg.qr(Z_GK)
    gram_KK = np.zeros((width, width))
    for block in _blocks(Y_DG):
        B_DK = (block @ Q_GK).astype(np.float64)
        gram_KK += B_DK.T @ B_DK
    squares, U_KK = np.linalg.eigh(gram_KK)
    singular = np.sqrt(np.maximum(squares[::-1][:dim], 0))
    singular = singular[singular > _MIN_SINGULAR * singular[0]]
    V_GH = (Q_GK @ U_KK[:, ::-1][:, : len(singular)]).astype(np.float32)
    largest = np.argmax(np.abs(V_GH), axis=0)
    V_GH *= np.where(V_GH[largest, np.arange(V_GH.shape[1])] < 0, -1, 1).astype(np.float32)
    return singular, V_GH


def _blocks(Y_DG: sparse.csr_array) -> list[sparse.csr_array]:
    if Y_DG.shape[0] <= _BLOCK_DOCS:
        return [Y_DG]
    return [Y_DG[start : start + _BLOCK_DOCS] for start in range(0, Y_DG.shape[0], _BLOCK_DOCS)]
