"""What a mean-field update does to one point, written in vector instructions of eight labels.

Compilers unroll loops over so few labels into single numbers. These functions are built from LLVM's vector types
instead, which every processor's instructions are chosen from; on one without vectors they are still right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8  # float32 values of one vector
# Taylor coefficients of exp, highest first: the first one left out is 1.2e-7 on [-ln2 / 2, ln2 / 2].
TAYLOR = (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)
LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
AHEAD = 4  # points
LOWEST = -87.0  # whose exp is still a normal number


class _Vectors:
    """Builds vector instructions over arrays that a compiled loop hands over."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.ir, self.context, self.builder = ir, context, builder
        self.f32, self.i32, self.i64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
        self.f32s, self.i32s = ir.VectorType(self.f32, LANES), ir.VectorType(self.i32, LANES)

    def data(self, kind: Any, array: Any) -> Any:
        """Return the pointer to an array's first value."""
        return self.context.make_array(kind)(self.context, self.builder, value=array).data

    def call(self, name: str, *arguments: Any, result: Any = None) -> Any:
        """Call one of LLVM's own functions on vectors."""
        kinds = [argument.type for argument in arguments]
        kind = self.ir.FunctionType(result or self.f32s, kinds)
        return self.builder.call(self.function(name, kind), arguments, fastmath=("fast",))

    def function(self, name: str, kind: Any) -> Any:
        """Return one of LLVM's own functions."""
        find: Any = cgutils.get_or_insert_function
        return find(self.builder.module, kind, name)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.call(f"llvm.fmuladd.v{LANES}f32", a, b, c)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def constant(self, value: float) -> Any:
        return self.ir.Constant(self.f32s, [value] * LANES)

    def integers(self, value: int) -> Any:
        return self.ir.Constant(self.i32s, [value] * LANES)

    def spread(self, value: Any) -> Any:
        """Return a vector of one number."""
        first = self.builder.insert_element(
            self.ir.Constant(self.f32s, self.ir.Undefined), value, self.ir.Constant(self.i32, 0)
        )
        return self.builder.shuffle_vector(
            first, self.ir.Constant(self.f32s, self.ir.Undefined), self.ir.Constant(self.i32s, None)
        )

    def at(self, pointer: Any, index: Any, chunk: int = 0) -> Any:
        """Return the pointer to a vector that starts at `pointer[index + 8 chunk]`."""
        place = self.builder.gep(pointer, [self.builder.add(index, self.ir.Constant(self.i64, LANES * chunk))])
        return self.builder.bitcast(place, self.f32s.as_pointer())

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=4)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer, align=4)

    def item(self, pointer: Any, index: Any, offset: int) -> Any:
        """Return `pointer[index + offset]`, one number."""
        return self.builder.load(
            self.builder.gep(pointer, [self.builder.add(index, self.ir.Constant(self.i64, offset))])
        )

    def prefetch(self, pointer: Any, ids: Any, point: Any, vertices: int, padded: int) -> None:
        """Ask for the rows of the vertices of a point that comes soon."""
        kind = self.ir.FunctionType(self.ir.VoidType(), [self.ir.IntType(8).as_pointer(), self.i32, self.i32, self.i32])
        function = self.function("llvm.prefetch.p0", kind)
        numbers = [self.ir.Constant(self.i32, value) for value in (0, 3, 1)]
        for v in range(vertices):
            row = self.builder.zext(self.item(ids, point, AHEAD * vertices + v), self.i64)
            start = self.builder.mul(row, self.ir.Constant(self.i64, padded))
            for chunk in range(0, padded // LANES, 2):
                place = self.builder.bitcast(self.at(pointer, start, chunk), self.ir.IntType(8).as_pointer())
                self.builder.call(function, [place, *numbers])

    def exchange(self, rows: Sequence[Any], distance: int) -> list[Any]:
        """Swap the blocks off the diagonal, so many values wide, of each pair of rows that lie so far apart."""
        swapped = list(rows)
        for first in range(LANES):
            if first & distance:
                continue
            upper, lower = rows[first], rows[first | distance]
            keep = [(k if not k & distance else LANES + (k & ~distance)) for k in range(LANES)]
            take = [(k | distance if not k & distance else LANES + k) for k in range(LANES)]
            masks = [self.ir.Constant(self.ir.VectorType(self.i32, LANES), each) for each in (keep, take)]
            swapped[first] = self.builder.shuffle_vector(upper, lower, masks[0])
            swapped[first | distance] = self.builder.shuffle_vector(upper, lower, masks[1])
        return swapped

    def exp(self, x: Any) -> Any:
        """Return exp(x) of values from -87 to 0, to 3e-7."""
        b = self.builder
        scaled = b.fmul(x, self.constant(LOG2E))
        whole = self.call(f"llvm.rint.v{LANES}f32", scaled)
        g = b.fmul(b.fsub(scaled, whole), self.constant(LN2))
        power = self.constant(TAYLOR[0])
        for coefficient in TAYLOR[1:]:
            power = self.fma(power, g, self.constant(coefficient))
        exponent = b.shl(b.add(b.fptosi(whole, self.i32s), self.integers(127)), self.integers(23))
        return b.fmul(power, b.bitcast(exponent, self.f32s))

    def fold(self, vectors: Sequence[Any], name: str) -> Any:
        """Return the sum or the largest of all values of vectors."""
        total = vectors[0]
        for vector in vectors[1:]:
            total = self.builder.fadd(total, vector) if name == "fadd" else self.larger(total, vector)
        function = f"llvm.vector.reduce.{name}.v{LANES}f32"
        start = (self.ir.Constant(self.f32, 0.0),) if name == "fadd" else ()
        return self.call(function, *start, total, result=self.f32)

    def rows(self, ids: Any, point: Any, vertices: int, padded: int) -> list[Any]:
        """Return where the values of a point's vertices begin."""
        starts = []
        for v in range(vertices):
            row = self.item(ids, point, v)
            starts.append(self.builder.mul(self.builder.zext(row, self.i64), self.ir.Constant(self.i64, padded)))
        return starts


def _moving(reads: bool, writes: bool) -> Any:
    """Return the intrinsic that updates one point; see below for its forms.

    Arguments: V zeros; L / 8 zeros; ids (N V), read (N V), write (N V), point V, values (M L), floor (L), q, row L,
    sums (M L). `q[row]` holds probabilities p and becomes beliefs: p exp(message), normalised, where `reads` is set,
    else p, normalised. The message is what the values of the point's vertices say, on top of `floor`, which is 0, and
    very low where there is no label. Where `writes` is set, the beliefs are added to the sums of the same vertices.
    All arrays are flat; the point's place in `ids` and the row's in `q` are given as offsets.
    """

    def move(
        context: Any, counted: Any, vectors: Any, ids: Any, read: Any, write: Any, point: Any, values: Any, floor: Any,
        q: Any, row: Any, sums: Any,
    ) -> Any:  # fmt: skip
        kinds = (counted, vectors, ids, read, write, point, values, floor, q, row, sums)
        vertices, chunks = counted.count, range(vectors.count)
        padded = LANES * vectors.count

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            v8 = _Vectors(context, builder)
            i, r, w, x, f, out, s = (v8.data(kinds[n], arguments[n]) for n in (2, 3, 4, 6, 7, 8, 10))
            at_point, at_row = arguments[5], arguments[9]
            zero = v8.ir.Constant(v8.i64, 0)
            scores = [v8.load(v8.at(out, at_row, c)) for c in chunks]
            if reads:
                v8.prefetch(x, i, at_point, vertices, padded)
                messages = [v8.load(v8.at(f, zero, c)) for c in chunks]
                for v, start in enumerate(v8.rows(i, at_point, vertices, padded)):
                    factor = v8.spread(v8.item(r, at_point, v))
                    messages = [v8.fma(factor, v8.load(v8.at(x, start, c)), messages[c]) for c in chunks]
                largest = v8.spread(v8.fold(messages, "fmax"))
                for c in chunks:
                    power = v8.exp(v8.larger(builder.fsub(messages[c], largest), v8.constant(LOWEST)))
                    scores[c] = builder.fmul(power, scores[c])
            factor = v8.spread(builder.fdiv(v8.ir.Constant(v8.f32, 1.0), v8.fold(scores, "fadd")))
            scores = [builder.fmul(score, factor) for score in scores]
            if not writes:
                for c in chunks:
                    v8.store(scores[c], v8.at(out, at_row, c))
                return context.get_dummy_value()
            for v, start in enumerate(v8.rows(i, at_point, vertices, padded)):
                factor = v8.spread(v8.item(w, at_point, v))
                for c in chunks:
                    place = v8.at(s, start, c)
                    v8.store(v8.fma(factor, scores[c], v8.load(place)), place)
            return context.get_dummy_value()

        return types.void(*kinds), generate

    return move


go_on = intrinsic(_moving(reads=True, writes=True))
only_read = intrinsic(_moving(reads=True, writes=False))
only_write = intrinsic(_moving(reads=False, writes=True))
scale = intrinsic(_moving(reads=False, writes=False))


@intrinsic
def mix(
    context: Any, vectors: Any, neighbours: Any, m: Any, count: Any, old: Any, new: Any, padded: Any, column: Any
) -> Any:
    """Blur a vertex m along one axis: new[m] = old[m] + half of both neighbours, in some columns from the first on.

    Arguments: a zero for each vector of columns; neighbours (2 M); m; M; old and new (M L); L; first column.
    """
    kinds = (vectors, neighbours, m, count, old, new, padded, column)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        n, x, y = (v8.data(kinds[k], arguments[k]) for k in (1, 4, 5))
        at, many, length, first = (arguments[k] for k in (2, 3, 6, 7))
        rows = [at, *(builder.zext(v8.item(n, index, 0), v8.i64) for index in (at, builder.add(at, many)))]
        own, left, right = (builder.add(builder.mul(row, length), first) for row in rows)
        for c in range(vectors.count):
            both = builder.fadd(v8.load(v8.at(x, left, c)), v8.load(v8.at(x, right, c)))
            v8.store(v8.fma(both, v8.constant(0.5), v8.load(v8.at(x, own, c))), v8.at(y, own, c))
        return context.get_dummy_value()

    return types.void(*kinds), generate


@intrinsic
def transpose(context: Any, vectors: Any, planes: Any, start: Any, step: Any, q: Any, place: Any) -> Any:
    """Let eight values from each of eight planes become rows of `q`.

    Arguments: L / 8 zeros; planes (K N); where the first plane's values begin; N; q; where the first row begins.
    """
    kinds = (vectors, planes, start, step, q, place)
    padded = LANES * vectors.count

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        source, target = v8.data(planes, arguments[1]), v8.data(q, arguments[4])
        index, rows = arguments[2], []
        for _ in range(LANES):
            rows.append(v8.load(v8.at(source, index)))
            index = builder.add(index, arguments[3])
        for distance in (4, 2, 1):
            rows = v8.exchange(rows, distance)
        index = arguments[5]
        for row in rows:
            v8.store(row, v8.at(target, index))
            index = builder.add(index, v8.ir.Constant(v8.i64, padded))
        return context.get_dummy_value()

    return types.void(*kinds), generate
