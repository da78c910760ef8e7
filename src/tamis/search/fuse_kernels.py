"""Compiled loop of the weight search: nDCG of many weightings of the same candidates.

Source: tamis design (method card C1); nDCG as in Järvelin, Kekäläinen 2002, linear gains.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def ndcg_grid(starts, z_AP, gain_P, weights_GBA, discounts, ideal_B, out_GB):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write nDCG of every weighting g and query b; of equal scores the earlier candidate comes first."""
    depth, num_arms = len(discounts), len(z_AP)
    best, gains = np.empty(depth), np.empty(depth)
    for g in range(len(weights_GBA)):
        for query in range(len(starts) - 1):
            size = 0
            for at in range(starts[query], starts[query + 1]):
                score = 0.0
                for arm in range(num_arms):
                    score += weights_GBA[g, query, arm] * z_AP[arm, at]
                if size == depth and score <= best[depth - 1]:
                    continue
                slot = size if size < depth else depth - 1
                while slot > 0 and best[slot - 1] < score:
                    best[slot], gains[slot] = best[slot - 1], gains[slot - 1]
                    slot -= 1
                best[slot], gains[slot] = score, gain_P[at]
                if size < depth:
                    size += 1
            total = 0.0
            for slot in range(size):
                total += gains[slot] * discounts[slot]
            out_GB[g, query] = total / ideal_B[query]
