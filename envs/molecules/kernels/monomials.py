"""Weighted monomials of unit vectors, compiled: Y^l(n) . Y^l(m) = (n . m)^l within degree l."""

from __future__ import annotations

import math
from typing import Any

from ...core.kernels.compiling import compiled_part

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_part = compiled_part(error_model="numpy", nogil=True, fastmath=_FAST)
ROOT2, ROOT3, ROOT6 = math.sqrt(2.0), math.sqrt(3.0), math.sqrt(6.0)


@_part
def monomials(x: Any, y: Any, z: Any, order: int, out: Any) -> None:
    """Weighted monomials of degree 0 to `order` of a unit vector."""
    out[0] = 1.0
    if order == 0:
        return
    out[1], out[2], out[3] = x, y, z
    if order == 1:
        return
    r2, r3, r6 = out.dtype.type(ROOT2), out.dtype.type(ROOT3), out.dtype.type(ROOT6)
    out[4], out[5], out[6] = x * x, y * y, z * z
    out[7], out[8], out[9] = r2 * x * y, r2 * y * z, r2 * z * x
    if order == 2:
        return
    out[10], out[11], out[12] = x * x * x, y * y * y, z * z * z
    out[13], out[14] = r3 * x * x * y, r3 * x * x * z
    out[15], out[16] = r3 * y * y * x, r3 * y * y * z
    out[17], out[18] = r3 * z * z * x, r3 * z * z * y
    out[19] = r6 * x * y * z


@_part
def monomial_gradient(x: Any, y: Any, z: Any, order: int, p: Any) -> Any:
    """Gradient with respect to (x, y, z) of sum p . monomials."""
    gx, gy, gz = x * 0, x * 0, x * 0
    if order >= 1:
        gx, gy, gz = p[1], p[2], p[3]
    if order >= 2:
        r2 = p.dtype.type(ROOT2)
        gx += 2 * x * p[4] + r2 * (y * p[7] + z * p[9])
        gy += 2 * y * p[5] + r2 * (x * p[7] + z * p[8])
        gz += 2 * z * p[6] + r2 * (y * p[8] + x * p[9])
    if order >= 3:
        r3, r6 = p.dtype.type(ROOT3), p.dtype.type(ROOT6)
        xx, yy, zz = x * x, y * y, z * z
        xy, yz, zx = x * y, y * z, z * x
        gx += 3 * xx * p[10] + r3 * (2 * (xy * p[13] + zx * p[14]) + yy * p[15] + zz * p[17])
        gy += 3 * yy * p[11] + r3 * (xx * p[13] + 2 * (xy * p[15] + yz * p[16]) + zz * p[18])
        gz += 3 * zz * p[12] + r3 * (xx * p[14] + yy * p[16] + 2 * (zx * p[17] + yz * p[18]))
        gx += r6 * yz * p[19]
        gy += r6 * zx * p[19]
        gz += r6 * xy * p[19]
    return gx, gy, gz
