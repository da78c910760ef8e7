"""The one guard that every encoder's vectors pass: finite, of norm 1 or exactly 0."""

from collections.abc import Sequence

import numpy as np

from tamis.errors import DataError


def unit_rows(vectors_BH: np.ndarray, texts: Sequence[str], *, floor: float) -> np.ndarray:
    """Scale rows to norm 1; rows whose norm is not above ``floor`` become zero.

    Args:
      vectors_BH: float32 [B, H]; changed in place.
      texts: what the rows encode, for the message.
      floor: norm up to which a row carries no direction.

    Returns:
      The same array.

    Raises:
      DataError: NaN or infinity; names the first such text.
    """
    norms = np.linalg.norm(vectors_BH, axis=1)
    damaged = np.flatnonzero(~np.isfinite(norms))
    if len(damaged):
        row = int(damaged[0])
        raise DataError(
            f"text {row} ({texts[row]!r:.60}): the encoder gave NaN or infinity ({len(damaged)} of {len(texts)} "
            "texts). Its weights are damaged or overflow: make or get the encoder again."
        )
    weak = norms <= floor
    vectors_BH /= np.where(weak, 1, norms)[:, None]
    vectors_BH[weak] = 0
    return vectors_BH
