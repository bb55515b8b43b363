"""Arrays by name in compiled code, at the price of one argument.

A call of compiled code pays for every array it is handed: 0.1 microseconds each, and three times as
much in a NamedTuple. Here the places in memory of all arrays of a batch go into one record, once;
compiled code turns the record back into NamedTuples, so that a step takes four arguments however
much it works on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


def address_record(**groups: Any) -> np.ndarray:
    """One record [1] of where arrays lie: a group of fields for each NamedTuple of arrays.

    The arrays must be contiguous, keep their places, and outlive the record.
    Raises ValueError for what compiled code could not address.
    """
    layout = []
    for group, arrays in groups.items():
        fields = []
        for name, array in arrays._asdict().items():
            if not (isinstance(array, np.ndarray) and array.flags.c_contiguous):
                raise ValueError(f"{group}.{name} must be a contiguous array")
            fields.append((name, array.ndim, array.dtype))
        layout.append((group, tuple(fields)))
    record = np.zeros(1, _record_type(tuple(layout)))
    for group, arrays in groups.items():
        for name, array in arrays._asdict().items():
            record[group][name]["address"] = array.ctypes.data
            record[group][name]["shape"] = array.shape
    return record


@cache
def _record_type(layout: tuple[Any, ...]) -> np.dtype:
    """The type of a record, the same object for all batches of a kind.

    numba finds the types of arguments by the identity of their dtype; another object of equal
    fields costs 3 to 6 microseconds a call.
    """
    groups = []
    for group, fields in layout:
        addresses = [
            (name, [("address", np.uint64), ("shape", np.int64, (axes,)), ("element", dtype)])
            for name, axes, dtype in fields
        ]
        groups.append((group, addresses))
    return np.dtype(groups)


def _arrays_at(typing_context: Any, group: Any, kind: Any) -> Any:
    """The NamedTuple `kind` of the arrays of a group of an `address_record`; in compiled code only.

    The fields of `kind` are those of the group, in any order; it may leave some out. (numba's
    `carray` does the same for one array, but costs seconds to compile for twenty.)
    """
    names = kind.instance_class._fields
    places = [dict(group.fields)[name] for name in names]
    arrays = [
        types.Array(place.type.typeof("element"), place.type.typeof("shape").shape[0], "C")
        for place in places
    ]
    made = types.NamedTuple(arrays, kind.instance_class)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        record, values = arguments[0], []
        word = ir.IntType(64)
        for place, array in zip(places, arrays, strict=True):
            start = place.offset
            address = builder.load(cgutils.get_record_member(builder, record, start, word))
            first = start + place.type.offset("shape")
            shape = [
                builder.load(cgutils.get_record_member(builder, record, first + 8 * axis, word))
                for axis in range(array.ndim)
            ]
            item = context.get_abi_sizeof(context.get_data_type(array.dtype))
            strides = [context.get_constant(types.intp, item)]
            for side in reversed(shape[1:]):
                strides.insert(0, builder.mul(strides[0], side))
            structure = context.make_array(array)(context, builder)
            populate_array(
                structure,
                data=builder.inttoptr(address, context.get_data_type(array.dtype).as_pointer()),
                shape=shape,
                strides=strides,
                itemsize=item,
                meminfo=None,
            )
            values.append(structure._getvalue())
        return context.make_tuple(builder, made, values)

    return made(group, kind), generate


arrays_at: Any = intrinsic(_arrays_at)
