"""Compiled loops of balanced halving; `tamis.training.batching.ngame` is the door to them.

Source: Dahiya et al. 2023, arXiv:2207.04452 (balanced binary k-means); Malinen, Fränti 2014 for the equal parts.
"""

import numpy as np
from numba import njit

LENGTH = 2048.0
"""Norm of vectors in whole steps: any part of an inner product of two is below 2^24, so exact in float32."""


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _product(left, right):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the inner product of two vectors in whole steps: exact, so the order of summing is the compiler's."""
    total = np.float32(0)
    for h in range(len(left)):
        total += np.float32(left[h]) * np.float32(right[h])
    return total


@njit(cache=True, nogil=True)
def _mean_direction(points, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the direction of the sum of some rows, norm 1 (0 where they cancel out)."""
    sums = np.zeros(points.shape[1], np.int64)
    for row in rows:
        for h in range(len(sums)):
            sums[h] += points[row, h]
    squares = 0.0
    for h in range(len(sums)):
        squares += np.float64(sums[h]) * np.float64(sums[h])
    scale = 1.0 / np.sqrt(squares) if squares > 0 else 0.0
    for h in range(len(sums)):
        out[h] = sums[h] * scale


@njit(cache=True, nogil=True)
def _difference(first, second, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the difference of two directions, as long as a vector and in whole steps too."""
    squares = 0.0
    for h in range(len(out)):
        squares += (first[h] - second[h]) ** 2
    scale = LENGTH / np.sqrt(squares) if squares > 0 else 0.0
    for h in range(len(out)):
        out[h] = np.int16(np.rint((first[h] - second[h]) * scale))


@njit(cache=True, nogil=True)
def _ranked(points, rows, direction):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the rows by falling product with a direction; of equal ones the smaller row first."""
    values = np.empty(len(rows), np.float32)
    for place in range(len(rows)):
        values[place] = -_product(points[rows[place]], direction)
    return rows[np.argsort(values, kind="mergesort")]


@njit(cache=True, nogil=True)
def _split(points, rows, half, rounds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return the rows, ``half`` of them nearer to one mean in front, each part ascending.

    The first mean starts as the first row, the second as the row farthest from it.
    """
    width = points.shape[1]
    first, second = np.empty(width), np.empty(width)
    direction = np.empty(width, np.int16)
    farthest = _ranked(points, rows, points[rows[0]])[-1:]
    _mean_direction(points, rows[:1], first)
    _mean_direction(points, farthest, second)
    found = rows
    for _ in range(rounds):
        _difference(first, second, direction)
        ranked = _ranked(points, rows, direction)
        again = np.concatenate((np.sort(ranked[:half]), np.sort(ranked[half:])))
        if (again == found).all():
            break
        found = again
        _mean_direction(points, found[:half], first)
        _mean_direction(points, found[half:], second)
    return found


@njit(cache=True, nogil=True)
def halve(points, members, parts, num, rounds):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Halve every part of more than one cluster, in place.

    Cluster c of ``num`` is members[c·n // num:(c + 1)·n // num].

    Args:
      points: int16 [n, H].
      members: int64 [n], rows of ``points``, ascending in the first call; rearranged within each part.
      parts: int64 [P + 1], ascending; part p holds the clusters parts[p] to parts[p + 1], which are to be told apart.
      num: of clusters.
      rounds: of 2-means, at most.

    Returns:
      int64, the parts now.
    """
    made = np.empty(2 * len(parts) - 1, np.int64)
    made[0], count = parts[0], 1
    for part in range(len(parts) - 1):
        low, high = parts[part], parts[part + 1]
        if high - low > 1:
            middle = (low + high) // 2
            start, cut, stop = low * len(members) // num, middle * len(members) // num, high * len(members) // num
            members[start:stop] = _split(points, members[start:stop].copy(), cut - start, rounds)
            made[count] = middle
            count += 1
        made[count] = high
        count += 1
    return made[:count]
