"""Innermost steps in vector instructions, from LLVM's vector types: compilers unroll short loops into single numbers.

On a processor without vectors they are still right.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8  # float32 values of one vector
PIXELS = 16  # that `nearer` compares at once: two vectors
TEXTONS = 4  # with which it compares them

FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the pointer to an array's first value."""
    return context.make_array(kind)(context, builder, value=array).data


def _spread(builder: Any, value: Any, kind: Any) -> Any:
    """Return a vector of one number."""
    none = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, none, ir.Constant(INTS, None))


def _add_row(typing: Any, lanes: Any, target: Any, place: Any, source: Any, row: Any) -> Any:
    """Add a row of source (N, L) to a row of target (M, L), both float32 and contiguous; lanes: a tuple of L zeros."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        length = len(signature.args[0])
        kind = ir.VectorType(FLOAT, length)

        def pointer(array: int, index: int) -> Any:
            start = _data(context, builder, signature.args[array], arguments[array])
            offset = builder.mul(arguments[index], ir.Constant(LONG, length))
            return builder.bitcast(builder.gep(start, [offset]), kind.as_pointer())

        to = pointer(1, 2)
        builder.store(builder.fadd(builder.load(to, align=4), builder.load(pointer(3, 4), align=4)), to, align=4)
        return context.get_dummy_value()

    return types.void(lanes, target, types.int64, source, types.int64), generate


def _nearer(
    typing: Any, responses: Any, pixels: Any, centres: Any, half_norms: Any, first: Any, best: Any, which: Any
) -> Any:
    """Compare 16 pixels with 4 textons, and note what is nearer than the best so far.

    Arguments: a tuple of R zeros; float32, contiguous: pixels (R, 16), centres (T, R), their halved squared norms (T,);
    the first of the 4; float32 best (16,) and int32 which (16,) to be updated. The score is centre x pixel - half norm.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = len(signature.args[0])
        data = [_data(context, builder, signature.args[k], arguments[k]) if k not in (0, 4) else None for k in range(7)]

        def vector(start: Any, place: int, kind: Any = FLOATS) -> Any:
            return builder.bitcast(builder.gep(start, [ir.Constant(LONG, place)]), kind.as_pointer())

        numbers = [builder.add(arguments[4], ir.Constant(LONG, j)) for j in range(TEXTONS)]
        rows = [builder.gep(data[2], [builder.mul(number, ir.Constant(LONG, count))]) for number in numbers]
        norms = [builder.load(builder.gep(data[3], [number])) for number in numbers]
        scores = [[builder.fneg(_spread(builder, norm, FLOATS))] * (PIXELS // LANES) for norm in norms]
        find: Any = cgutils.get_or_insert_function
        fma = find(builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), f"llvm.fmuladd.v{LANES}f32")
        for r in range(count):
            values = [
                builder.load(vector(data[1], r * PIXELS + chunk * LANES), align=4) for chunk in range(PIXELS // LANES)
            ]
            for j in range(TEXTONS):
                weight = _spread(builder, builder.load(builder.gep(rows[j], [ir.Constant(LONG, r)])), FLOATS)
                scores[j] = [builder.call(fma, [weight, *pair]) for pair in zip(values, scores[j], strict=True)]
        for chunk in range(PIXELS // LANES):
            places = vector(data[5], chunk * LANES), vector(data[6], chunk * LANES, INTS)
            highest, winner = (builder.load(place, align=4) for place in places)
            for j in range(TEXTONS):
                better = builder.fcmp_ordered(">", scores[j][chunk], highest)
                highest = builder.select(better, scores[j][chunk], highest)
                winner = builder.select(better, _spread(builder, builder.trunc(numbers[j], INT), INTS), winner)
            builder.store(highest, places[0], align=4)
            builder.store(winner, places[1], align=4)
        return context.get_dummy_value()

    return types.void(responses, pixels, centres, half_norms, types.int64, best, which), generate


add_row: Any = intrinsic(_add_row)
nearer: Any = intrinsic(_nearer)
