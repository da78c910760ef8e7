"""Compiled loops of exact top-k; `tamis.ops.topk` is the door to them.

Source: tamis design (method card B1): scores of winners are summed in float64, in one fixed order.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def pair_scores(query_BH, query_P, rows_PH, out_P):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the float64 dot product of query ``query_P[p]`` and vector ``rows_PH[p]`` for each pair p.

    Four partial sums, always the same: the result does not depend on how the pairs were cut into calls.
    """
    width = rows_PH.shape[1]
    whole = width - width % 4
    for pair in range(len(query_P)):
        query, row = query_BH[query_P[pair]], rows_PH[pair]
        a = b = c = d = 0.0
        for h in range(0, whole, 4):
            a += np.float64(query[h]) * np.float64(row[h])
            b += np.float64(query[h + 1]) * np.float64(row[h + 1])
            c += np.float64(query[h + 2]) * np.float64(row[h + 2])
            d += np.float64(query[h + 3]) * np.float64(row[h + 3])
        for h in range(whole, width):
            a += np.float64(query[h]) * np.float64(row[h])
        out_P[pair] = (a + b) + (c + d)
