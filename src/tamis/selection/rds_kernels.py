"""Compiled loop of the round robin; `tamis.selection.rds` is the door.

Source: Ivison et al. 2025, arXiv:2503.01807.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def take_in_turn(lists_TK, num_rows, sizes, limit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Let each list in turn take its first row that none has taken, until one does not fit.

    Args:
      lists_TK: int64 [T, K], rows best first, each at most once a list.
      num_rows: of the pool; all lists hold all of them where K reaches it.
      sizes: int64 [num_rows].
      limit: for the sum of the taken sizes.

    Returns:
      int64 [P], the rows in order, the last being the one that did not fit; and whether a list ended too early.
    """
    taken = np.zeros(num_rows, np.bool_)
    places = np.zeros(len(lists_TK), np.int64)
    picks = np.empty(num_rows, np.int64)
    amount = np.int64(0)
    for turn in range(num_rows):
        owner = turn % len(lists_TK)
        at = places[owner]
        while at < lists_TK.shape[1] and taken[lists_TK[owner, at]]:
            at += 1
        if at == lists_TK.shape[1]:
            return picks[:turn], True
        row = lists_TK[owner, at]
        places[owner] = at + 1
        taken[row] = True
        picks[turn] = row
        amount += sizes[row]
        if amount > limit:
            return picks[: turn + 1], False
    return picks, False
