"""Loops over whole vector registers, for what numba's compiler would do a value or half a register at a time.

Source: tamis design (method cards K3 and K5); FNV-1a (Fowler, Noll, Vo), MinHash (Broder 1997).

Each function but the last is a few instructions on LLVM's vectors of 512 bits; a machine with narrower registers runs
them in parts, with the same results. An index may point anywhere: the caller sees to the room that a docstring names.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.core.cgutils import alloca_once_value, for_range
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 64
"""`minima` takes so many hash functions at a time."""
STEP = 8
"""`add_bytes` adds at most so many bytes to each of so many hashes."""
_PRIME = 0x100000001B3  # of FNV-1a
_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES, _INTS, _LONGS = ir.VectorType(_BYTE, 64), ir.VectorType(_INT, 16), ir.VectorType(_LONG, STEP)
_Code = tuple[Any, Callable[..., Any]]


def _splat(kind: Any, value: int) -> Any:  # noqa: ANN401 - llvmlite has no types
    return ir.Constant(kind, [value] * kind.count)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, pointee: Any) -> Any:  # noqa: ANN401
    """Return a pointer to ``pointee`` at array[index]."""
    place = builder.gep(make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(place, pointee.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def fold_bytes(typing: Any, data: Any, at: Any, letters: Any, to: Any) -> _Code:  # noqa: ANN401
    """Write 64 bytes from data[at], in lower case if they are ASCII and of words, else 0, to letters[to].

    Returns uint64: which of the bytes are not ASCII, the first in the lowest bit. What is written for those is void.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        kinds = signature.args
        found = builder.load(_place(context, builder, kinds[0], args[0], args[1], _BYTES), align=1)

        def within(values: Any, first: str, last: str) -> Any:  # noqa: ANN401
            shifted = builder.sub(values, _splat(_BYTES, ord(first)))
            return builder.icmp_unsigned("<=", shifted, _splat(_BYTES, ord(last) - ord(first)))

        small = builder.or_(found, _splat(_BYTES, 0x20))
        other = builder.or_(within(found, "0", "9"), within(found, "_", "_"))
        folded = builder.select(other, found, _splat(_BYTES, 0))
        folded = builder.select(within(small, "a", "z"), small, folded)
        builder.store(folded, _place(context, builder, kinds[2], args[2], args[3], _BYTES), align=1)
        return builder.bitcast(builder.icmp_signed("<", found, _splat(_BYTES, 0)), _LONG)

    return types.uint64(data, types.uint64, letters, types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def occupied(typing: Any, letters: Any, at: Any) -> _Code:  # noqa: ANN401
    """Return uint64: which of the 64 bytes from letters[at] are not 0, the first in the lowest bit."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        found = builder.load(_place(context, builder, signature.args[0], args[0], args[1], _BYTES), align=1)
        return builder.bitcast(builder.icmp_unsigned("!=", found, _splat(_BYTES, 0)), _LONG)

    return types.uint64(letters, types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typing: Any, value: Any) -> _Code:  # noqa: ANN401
    """Return the number of the lowest bit that is set, uint64; the value is not 0."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def add_bytes(typing: Any, letters: Any, bounds: Any, number: Any, hashes: Any, to: Any) -> _Code:  # noqa: ANN401
    """Add up to 8 bytes of each of 8 words from ``number`` on to their FNV-1a hashes, at hashes[to].

    ``bounds`` are uint32: word i is letters[bounds[2 i]:bounds[2 i + 1]]; 8 bytes are read whatever its length.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        kinds = signature.args
        first = builder.shl(args[2], _LONG(1))
        both = builder.load(_place(context, builder, kinds[1], args[1], first, _INTS), align=4)
        none = ir.Constant(_INTS, ir.Undefined)
        halves = ir.VectorType(_INT, STEP)
        begins, ends = (
            builder.shuffle_vector(both, none, ir.Constant(halves, list(range(side, 2 * STEP, 2)))) for side in range(2)
        )
        lengths = builder.zext(builder.sub(ends, begins), _LONGS)
        rest = ir.Constant(_LONGS, ir.Undefined)
        for lane in range(STEP):
            begin = builder.zext(builder.extract_element(begins, _INT(lane)), _LONG)
            word = builder.load(_place(context, builder, kinds[0], args[0], begin, _LONG), align=1)
            rest = builder.insert_element(rest, word, _INT(lane))
        place = _place(context, builder, kinds[3], args[3], args[4], _LONGS)
        found = builder.load(place, align=8)
        for step in range(STEP):
            added = builder.xor(found, builder.and_(rest, _splat(_LONGS, 0xFF)))
            is_inside = builder.icmp_unsigned(">", lengths, _splat(_LONGS, step))
            found = builder.select(is_inside, builder.mul(added, _splat(_LONGS, _PRIME)), found)
            rest = builder.lshr(rest, _splat(_LONGS, 8))
        builder.store(found, place, align=8)
        return context.get_dummy_value()

    return types.void(letters, bounds, types.uint64, hashes, types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def _least(typing: Any, values: Any, count: Any, a: Any, b: Any, at: Any, out: Any) -> _Code:  # noqa: ANN401
    """Write the least a_k x + b_k of the values for 64 k from ``at`` on: the minima stay in registers."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        kinds = signature.args
        places = [builder.add(args[4], _LONG(first)) for first in range(0, LANES, _INTS.count)]

        def parts(number: int) -> list[Any]:
            array, kind = args[number], kinds[number]
            return [_place(context, builder, kind, array, place, _INTS) for place in places]

        factors, summands = ([builder.load(part, align=4) for part in parts(number)] for number in (2, 3))
        least = [alloca_once_value(builder, _splat(_INTS, 0xFFFFFFFF)) for _ in places]
        with for_range(builder, args[1]) as loop:
            x = builder.load(_place(context, builder, kinds[0], args[0], loop.index, _INT), align=4)
            one = builder.insert_element(ir.Constant(_INTS, ir.Undefined), x, _INT(0))
            all_x = builder.shuffle_vector(one, ir.Constant(_INTS, ir.Undefined), _splat(_INTS, 0))
            for factor, summand, place in zip(factors, summands, least, strict=True):
                found, before = builder.add(builder.mul(factor, all_x), summand), builder.load(place)
                builder.store(builder.select(builder.icmp_unsigned("<", found, before), found, before), place)
        for part, place in zip(parts(5), least, strict=True):
            builder.store(builder.load(place), part, align=4)
        return context.get_dummy_value()

    return types.void(values, types.int64, a, b, types.uint64, out), build


@njit(cache=True, nogil=True)
def minima(values, count, a, b, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the least (a_k x + b_k) mod 2^32 of the first ``count`` values into ``out``; none: 2^32 - 1.

    All are uint32, and a, b and out of one length that 64 divides.
    """
    for at in range(0, len(out), LANES):
        _least(values, count, a, b, at, out)
