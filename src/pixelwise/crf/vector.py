"""What a mean-field update does to a few points, written in vector instructions of eight values.

Compilers unroll loops over so few labels into single numbers. These functions are built from LLVM's vector types
instead, which every processor's instructions are chosen from; on one without vectors they are still right.

Axes: V vertices of a point, K labels, L labels padded to a multiple of 8. Arrays are flat, float32 unless said, and
places in them are given as offsets. V is known when a function is compiled, from the length of a tuple of zeros; the
number of labels is not, so that any number runs the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8  # float32 values of one vector
# Taylor coefficients of exp, highest first: the first one left out is 1.2e-7 on [-ln2 / 2, ln2 / 2].
TAYLOR = (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)
LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
ATANH = (2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0)  # log(m) / s over the powers of s^2, highest first
SQRT_HALF = 0x3F3504F3  # the bits of sqrt(1/2)
AHEAD = 64  # values of a map that are asked for before they are needed
LOWEST = -87.0  # whose exp is still a normal number
SMALLEST = 1e-30  # belief: what is less would be slow to calculate with, and changes nothing


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled loops call what builds instructions, with the arguments after its first."""
    made: Callable[..., Any] = intrinsic(function)
    return made


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
        find: Any = cgutils.get_or_insert_function
        function = find(self.builder.module, self.ir.FunctionType(result or self.f32s, kinds), name)
        return self.builder.call(function, arguments, fastmath=("fast",))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.call(f"llvm.fmuladd.v{LANES}f32", a, b, c)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def constant(self, value: float) -> Any:
        return self.ir.Constant(self.f32s, [value] * LANES)

    def integers(self, value: int) -> Any:
        return self.ir.Constant(self.i32s, [value] * LANES)

    def offset(self, index: Any, more: int) -> Any:
        return self.builder.add(index, self.ir.Constant(self.i64, more))

    def spread(self, value: Any) -> Any:
        """Return a vector of one number."""
        first = self.builder.insert_element(
            self.ir.Constant(self.f32s, self.ir.Undefined), value, self.ir.Constant(self.i32, 0)
        )
        return self.builder.shuffle_vector(
            first, self.ir.Constant(self.f32s, self.ir.Undefined), self.ir.Constant(self.i32s, None)
        )

    def at(self, pointer: Any, index: Any) -> Any:
        """Return the pointer to a vector that starts at `pointer[index]`."""
        return self.builder.bitcast(self.builder.gep(pointer, [index]), self.f32s.as_pointer())

    def load(self, pointer: Any, index: Any) -> Any:
        return self.builder.load(self.at(pointer, index), align=4)

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        self.builder.store(value, self.at(pointer, index), align=4)

    def item(self, pointer: Any, index: Any) -> Any:
        """Return `pointer[index]`, one number."""
        return self.builder.load(self.builder.gep(pointer, [index]))

    def prefetch(self, pointer: Any, index: Any) -> None:
        """Ask for `pointer[index]` to be brought near, which may lie outside the array."""
        byte = self.ir.IntType(8).as_pointer()
        kind = self.ir.FunctionType(self.ir.VoidType(), [byte, self.i32, self.i32, self.i32])
        find: Any = cgutils.get_or_insert_function
        place = self.builder.bitcast(self.builder.gep(pointer, [index]), byte)
        read_near = [self.ir.Constant(self.i32, value) for value in (0, 3, 1)]
        self.builder.call(find(self.builder.module, kind, "llvm.prefetch.p0"), [place, *read_near])

    def kept(self, value: Any) -> Any:
        """Return the place of a value that changes from step to step of a loop."""
        room: Any = cgutils.alloca_once
        place = room(self.builder, value.type)
        self.builder.store(value, place)
        return place

    @contextmanager
    def each(self, count: Any, step: int = 1) -> Iterator[Any]:
        """Go over 0, step, 2 step, ... below a count that is at least one step; not unrolled, for there are few."""
        builder, body = self.builder, self.builder.append_basic_block("each")
        end = builder.append_basic_block("each.end")
        before = builder.block
        builder.branch(body)
        builder.position_at_end(body)
        index = builder.phi(self.i64)
        index.add_incoming(self.ir.Constant(self.i64, 0), before)
        yield index
        following = self.offset(index, step)
        index.add_incoming(following, builder.block)
        again = builder.cbranch(builder.icmp_unsigned("<", following, count), body, end)
        again.set_metadata("llvm.loop", self._not_unrolled())
        builder.position_at_end(end)

    def _not_unrolled(self) -> Any:
        """Return what tells LLVM to leave a loop as it is."""
        module = self.builder.module
        words = module.add_metadata([self.ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        return module.add_metadata([words])

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

    def log(self, x: Any) -> Any:
        """Return log(x) of positive, normal values, to 2e-6: of x = 2^n m by atanh(s) with s = (m - 1) / (m + 1)."""
        b = self.builder
        bits = b.bitcast(x, self.i32s)
        # so that m lies from sqrt(1/2) to sqrt(2)
        shifted = b.sub(bits, self.integers(SQRT_HALF))
        exponent = b.ashr(shifted, self.integers(23))
        m = b.bitcast(b.sub(bits, b.shl(exponent, self.integers(23))), self.f32s)
        s = b.fdiv(b.fsub(m, self.constant(1)), b.fadd(m, self.constant(1)))
        square = b.fmul(s, s)
        series = self.constant(ATANH[0])
        for coefficient in ATANH[1:]:
            series = self.fma(series, square, self.constant(coefficient))
        return self.fma(b.sitofp(exponent, self.f32s), self.constant(LN2), b.fmul(series, s))

    def vertices(self, ids: Any, weights: Any, point: Any, count: int, padded: Any) -> list[tuple[Any, Any]]:
        """Return where the values of a point's vertices begin, and their weights."""
        found = []
        for v in range(count):
            place = self.offset(point, v)
            start = self.builder.mul(self.builder.zext(self.item(ids, place), self.i64), padded)
            found.append((start, self.spread(self.item(weights, place))))
        return found


@instruction
def gather(
    context: Any, counted: Any, ids: Any, weights: Any, point: Any, values: Any, padded: Any, out: Any, row: Any
) -> Any:
    """Read a point's message off its vertices.

    Arguments: V zeros; ids (N V), weights (N V); V times the point; values (M L); L; out, and where its row begins.
    """
    kinds = (counted, ids, weights, point, values, padded, out, row)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        i, w, x, target = (v8.data(kinds[n], arguments[n]) for n in (1, 2, 4, 6))
        length, first = arguments[5], arguments[7]
        vertices = v8.vertices(i, w, arguments[3], counted.count, length)
        with v8.each(length, LANES) as column:
            total = v8.constant(0)
            for start, weight in vertices:
                total = v8.fma(weight, v8.load(x, builder.add(start, column)), total)
            v8.store(total, target, builder.add(first, column))
        return context.get_dummy_value()

    return types.void(*kinds), generate


@instruction
def scatter(
    context: Any, counted: Any, ids: Any, weights: Any, point: Any, q: Any, row: Any, padded: Any, sums: Any
) -> Any:
    """Add a point's beliefs to the sums of its vertices.

    Arguments: V zeros; ids (N V), weights (N V); V times the point; q, and where its row begins; L; sums (M L).
    """
    kinds = (counted, ids, weights, point, q, row, padded, sums)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        i, w, source, target = (v8.data(kinds[n], arguments[n]) for n in (1, 2, 4, 7))
        first, length = arguments[5], arguments[6]
        vertices = v8.vertices(i, w, arguments[3], counted.count, length)
        with v8.each(length, LANES) as column:
            value = v8.load(source, builder.add(first, column))
            for start, weight in vertices:
                place = builder.add(start, column)
                v8.store(v8.fma(weight, value, v8.load(target, place)), target, place)
        return context.get_dummy_value()

    return types.void(*kinds), generate


@instruction
def transpose(
    context: Any, source: Any, place: Any, rows: Any, blocks: Any, target: Any, first: Any, beside: Any, below: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Transpose blocks of 8 x 8 values.

    Arguments: source, where the first block begins, from one row of a block to the next and from one block to the
    next; the same of the target; number of blocks.
    """
    kinds = (source, place, rows, blocks, target, first, beside, below, count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        x, y = v8.data(source, arguments[0]), v8.data(target, arguments[4])
        froms, tos = v8.kept(arguments[1]), v8.kept(arguments[5])
        with v8.each(arguments[8]):
            at, rows = builder.load(froms), []
            for _ in range(LANES):
                rows.append(v8.load(x, at))
                at = builder.add(at, arguments[2])
            for distance in (4, 2, 1):
                rows = v8.exchange(rows, distance)
            at = builder.load(tos)
            for row in rows:
                v8.store(row, y, at)
                at = builder.add(at, arguments[6])
            builder.store(builder.add(builder.load(froms), arguments[3]), froms)
            builder.store(builder.add(builder.load(tos), arguments[7]), tos)
        return context.get_dummy_value()

    return types.void(*kinds), generate


@instruction
def soften(
    context: Any, scores: Any, place: Any, labels: Any, planes: Any, start: Any, step: Any, out: Any, first: Any,
    gap: Any,
) -> Any:  # fmt: skip
    """Turn the messages to eight points into their beliefs: p exp(message), normalised over the labels.

    Arguments: scores (K 8), which are overwritten, and where they begin; K; probabilities p, where the first label's
    eight begin, and from one label to the next; beliefs, which may be the scores, and their places in the same way.
    """
    kinds = (scores, place, labels, planes, start, step, out, first, gap)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        t, p, y = (v8.data(kinds[n], arguments[n]) for n in (0, 3, 6))
        t = builder.gep(t, [arguments[1]])
        values = builder.mul(arguments[2], v8.ir.Constant(v8.i64, LANES))
        largest = v8.kept(v8.constant(-3e38))
        with v8.each(values, LANES) as k:
            builder.store(v8.larger(v8.load(t, k), builder.load(largest)), largest)
        total, at = v8.kept(v8.constant(0)), v8.kept(arguments[4])
        with v8.each(values, LANES) as k:
            power = v8.exp(v8.larger(builder.fsub(v8.load(t, k), builder.load(largest)), v8.constant(LOWEST)))
            score = builder.fmul(power, v8.load(p, builder.load(at)))
            v8.store(score, t, k)
            v8.prefetch(p, v8.offset(builder.load(at), AHEAD))
            builder.store(builder.fadd(builder.load(total), score), total)
            builder.store(builder.add(builder.load(at), arguments[5]), at)
        factor = builder.fdiv(v8.constant(1), builder.load(total))
        builder.store(arguments[7], at)
        with v8.each(values, LANES) as k:
            belief = v8.larger(builder.fmul(v8.load(t, k), factor), v8.constant(SMALLEST))
            v8.store(belief, y, builder.load(at))
            builder.store(builder.add(builder.load(at), arguments[8]), at)
        return context.get_dummy_value()

    return types.void(*kinds), generate


@instruction
def compare(context: Any, scores: Any, place: Any, labels: Any, beliefs: Any, start: Any, step: Any) -> Any:
    """Return how far eight points' beliefs diverge from those before, sum q log(q / before), and put them there.

    Arguments: beliefs q (K 8), and where they begin; K; those before, where the first label's eight begin, and from one
    label to the next.
    """
    kinds = (scores, place, labels, beliefs, start, step)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        q, old = v8.data(scores, arguments[0]), v8.data(beliefs, arguments[3])
        q = builder.gep(q, [arguments[1]])
        total, at = v8.kept(v8.constant(0)), v8.kept(arguments[4])
        with v8.each(builder.mul(arguments[2], v8.ir.Constant(v8.i64, LANES)), LANES) as k:
            now, before = v8.load(q, k), v8.load(old, builder.load(at))
            v8.store(now, old, builder.load(at))
            ratio = v8.log(builder.fdiv(now, v8.larger(before, v8.constant(SMALLEST))))
            builder.store(v8.fma(now, ratio, builder.load(total)), total)
            builder.store(builder.add(builder.load(at), arguments[5]), at)
        start = v8.ir.Constant(v8.f32, 0.0)
        total = v8.call(f"llvm.vector.reduce.fadd.v{LANES}f32", start, builder.load(total), result=v8.f32)
        return builder.fpext(total, v8.ir.DoubleType())

    return types.float64(*kinds), generate


@instruction
def mix(context: Any, neighbours: Any, m: Any, count: Any, old: Any, new: Any, factors: Any, padded: Any) -> Any:
    """Blur a vertex m along one axis: new[m] = factors (old[m] + half of both neighbours).

    Arguments: neighbours (2 M); m; M; old and new (M L); factors (L); L.
    """
    kinds = (neighbours, m, count, old, new, factors, padded)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v8 = _Vectors(context, builder)
        n, x, y, f = (v8.data(kinds[k], arguments[k]) for k in (0, 3, 4, 5))
        at, many, length = (arguments[k] for k in (1, 2, 6))
        rows = [at, *(builder.zext(v8.item(n, index), v8.i64) for index in (at, builder.add(at, many)))]
        own, left, right = (builder.mul(row, length) for row in rows)
        with v8.each(length, LANES) as c:
            both = builder.fadd(v8.load(x, builder.add(left, c)), v8.load(x, builder.add(right, c)))
            mixed = v8.fma(both, v8.constant(0.5), v8.load(x, builder.add(own, c)))
            v8.store(builder.fmul(mixed, v8.load(f, c)), y, builder.add(own, c))
        return context.get_dummy_value()

    return types.void(*kinds), generate
