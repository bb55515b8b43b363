"""Sums of short rows in vector registers, for loops too short for a compiler to vectorise.

Rows are as wide as a tuple `width` is long, a multiple of four, known when a kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.np.arrayobj import make_array

_FAST = ("reassoc", "contract", "nsz", "arcp")
intrinsic: Any = _intrinsic


@intrinsic
def sum_rows(
    typing: Any, weight: Any, rows: Any, out: Any, places: Any, count: Any, width: Any
) -> Any:
    """out[at] = sum over k < count of weight[first + k stride] rows[row + k], all arrays flat.

    places: (first, stride, row, at), of which `row` and `at` count rows; weight, rows and out are
    contiguous and of one floating type.
    """
    given = (weight, rows, out, types.UniTuple(types.intp, 4), types.intp, width)
    return types.void(*given), _generator(spread=True)


@intrinsic
def sum_products(
    typing: Any, weight: Any, rows: Any, out: Any, places: Any, count: Any, width: Any
) -> Any:
    """out[at] = sum over k < count of weight[first + k] * rows[row + k], entry by entry.

    places: (first, row, at), which count rows.
    """
    given = (weight, rows, out, types.UniTuple(types.intp, 3), types.intp, width)
    return types.void(*given), _generator(spread=False)


def _generator(spread: bool) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weight, rows, out, places, count, _ = arguments
        if spread:
            first, stride, row, at = cgutils.unpack_tuple(builder, places)
        else:
            first, row, at = cgutils.unpack_tuple(builder, places)
        kinds = signature.args
        width = kinds[-1].count
        number = context.get_data_type(kinds[0].dtype)
        size = context.get_value_type(types.intp)
        wide = ir.Constant(size, width)
        parts, done = [], 0
        while done < width:
            lanes = 8 if width - done >= 8 else 4
            parts.append((done, ir.VectorType(number, lanes)))
            done += lanes

        def data(which: int, value: Any) -> Any:
            return make_array(kinds[which])(context, builder, value).data

        where = data(0, weight), data(1, rows), data(2, out)

        def load(base: Any, index: Any, piece: Any) -> Any:
            offset, kind = piece
            at = builder.gep(base, [builder.add(index, ir.Constant(size, offset))])
            return builder.load(builder.bitcast(at, kind.as_pointer()), align=number_bytes)

        number_bytes = 8 if isinstance(number, ir.DoubleType) else 4
        before = builder.block
        loop, after = builder.append_basic_block("rows"), builder.append_basic_block("stored")
        builder.cbranch(builder.icmp_signed(">", count, ir.Constant(size, 0)), loop, after)
        builder.position_at_end(loop)
        k = builder.phi(size)
        sums = [builder.phi(kind) for _, kind in parts]
        base = builder.mul(builder.add(row, k), wide)
        if spread:
            pointer = builder.gep(where[0], [builder.add(first, builder.mul(k, stride))])
            value = builder.load(pointer)
        added = []
        for piece, total in zip(parts, sums, strict=True):
            kind = piece[1]
            if spread:
                first_lane = ir.Constant(ir.IntType(32), 0)
                lone = builder.insert_element(ir.Constant(kind, ir.Undefined), value, first_lane)
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
                factor = builder.shuffle_vector(lone, ir.Constant(kind, ir.Undefined), zeros)
            else:
                factor = load(where[0], builder.mul(builder.add(first, k), wide), piece)
            product = builder.fmul(factor, load(where[1], base, piece), flags=_FAST)
            added.append(builder.fadd(total, product, flags=_FAST))
        following = builder.add(k, ir.Constant(size, 1))
        k.add_incoming(ir.Constant(size, 0), before)
        k.add_incoming(following, loop)
        for total, new, (_, kind) in zip(sums, added, parts, strict=True):
            total.add_incoming(ir.Constant(kind, None), before)
            total.add_incoming(new, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        results = [builder.phi(kind) for _, kind in parts]
        for new, result, (offset, kind) in zip(added, results, parts, strict=True):
            result.add_incoming(ir.Constant(kind, None), before)
            result.add_incoming(new, loop)
            index = builder.add(builder.mul(at, wide), ir.Constant(size, offset))
            to = builder.bitcast(builder.gep(where[2], [index]), kind.as_pointer())
            builder.store(result, to, align=number_bytes)
        return context.get_dummy_value()

    return generate
