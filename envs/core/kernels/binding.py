"""Arrays by name in compiled code, at the price of one argument.

A call of compiled code pays for every array it is handed: 0.1 microseconds each, and three times as
much in a NamedTuple. Here the places in memory of all arrays of a batch go into one record, once;
compiled code turns the record back into NamedTuples, so that a step takes four arguments however
much it works on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic, overload


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
            shape = ("shape", np.int64, (array.ndim,))
            fields.append((name, [("address", np.uint64), shape, ("element", array.dtype)]))
        layout.append((group, fields))
    record = np.zeros(1, np.dtype(layout))
    for group, arrays in groups.items():
        for name, array in arrays._asdict().items():
            record[group][name]["address"] = array.ctypes.data
            record[group][name]["shape"] = array.shape
    return record


def arrays_at(group: Any, kind: type) -> Any:
    """The NamedTuple `kind` of the arrays of a group of an `address_record`; in compiled code only.

    The fields of `kind` are those of the group, in any order; it may leave some out.
    """
    raise RuntimeError("arrays_at works in compiled code only")


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@overload(arrays_at)  # type: ignore[untyped-decorator]
def _arrays_at(group: Any, kind: Any) -> Any:
    names = kind.instance_class._fields
    given: dict[str, Any] = {"pointer": _pointer, "carray": carray, "made": kind.instance_class}
    parts = []
    for name in names:
        field = group.typeof(name)
        given[f"element_{name}"] = field.typeof("element")
        sides = field.typeof("shape").shape[0]
        shape = "".join(f"group.{name}.shape[{axis}], " for axis in range(sides))
        parts.append(f"carray(pointer(group.{name}.address), ({shape}), element_{name})")
    # numba wants the annotations of the two to agree.
    head = "def build(group: Any, kind: Any) -> Any:"
    exec(f"{head}\n    return made({', '.join(parts)})\n", given)
    return given["build"]
