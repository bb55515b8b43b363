"""Compiled form of `walk.py`: steps forward, and back with the gradient of what they led to.

Components are [sites, 2], real and imaginary part. Sites are row by row on `shape` [2], whose
first side is 1 in one dimension: what is called the second axis below is the only one there.
Phases are exp(i A) of links [dimension * sites, 2], in the order of `walk.py`.
"""

from __future__ import annotations

import math
from typing import Any

from ..core.kernels.compiling import compiled, compiled_part

_HALF = math.sqrt(0.5)

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")


@_part
def _line_site(
    u: Any, d: Any, phase: Any, c: float, s: float, x: int, y: int, to_u: Any, to_d: Any
) -> None:
    """What crosses the link from site x to site y ahead of it."""
    ar, ai = c * u[x, 0] + s * d[x, 1], c * u[x, 1] - s * d[x, 0]
    br, bi = c * d[y, 0] + s * u[y, 1], c * d[y, 1] - s * u[y, 0]
    pr, pi = phase[x, 0], phase[x, 1]
    to_u[y, 0] = pr * ar - pi * ai
    to_u[y, 1] = pr * ai + pi * ar
    to_d[x, 0] = pr * br + pi * bi
    to_d[x, 1] = pr * bi - pi * br


@_part
def line_step(u: Any, d: Any, phase: Any, c: float, s: float, to_u: Any, to_d: Any) -> None:
    """One step in one dimension; c, s: cosine and sine of the coin's angle."""
    last = len(u) - 1
    for x in range(last):
        _line_site(u, d, phase, c, s, x, x + 1, to_u, to_d)
    # A literal 0 would be a type of its own, and a second form to compile.
    _line_site(u, d, phase, c, s, last, (last + 1) % len(u), to_u, to_d)


@_part
def plane_step(
    u: Any, d: Any, phase: Any, c: float, s: float, shape: Any, row: Any, to_u: Any, to_d: Any
) -> None:
    """One step in two dimensions, a row at a time; row [2, sites of a row, 2] is overwritten."""
    rows, n = shape[0], shape[1]
    second = rows * n
    for r in range(rows):
        here = r * n
        behind = here - n if r > 0 else second - n
        ahead = here + n if r < rows - 1 else 0
        for y in range(n):
            i, j = behind + y, ahead + y
            ar, ai = c * u[i, 0] - s * d[i, 0], c * u[i, 1] - s * d[i, 1]
            br, bi = c * d[j, 0] + s * u[j, 0], c * d[j, 1] + s * u[j, 1]
            pr, pi = phase[i, 0], phase[i, 1]
            qr, qi = phase[here + y, 0], phase[here + y, 1]
            xr, xi = pr * ar - pi * ai, pr * ai + pi * ar
            zr, zi = qr * br + qi * bi, qr * bi - qi * br
            row[0, y, 0] = 0.5 * (xr + zr)
            row[0, y, 1] = 0.5 * (xi + zi)
            row[1, y, 0] = 0.5 * (xr - zr)
            row[1, y, 1] = 0.5 * (xi - zi)
        for y in range(n):
            back = y - 1 if y > 0 else n - 1
            on = y + 1 if y < n - 1 else 0
            i = here + y
            pr, pi = phase[second + here + back, 0], phase[second + here + back, 1]
            qr, qi = phase[second + i, 0], phase[second + i, 1]
            ar, ai = row[0, back, 0], row[0, back, 1]
            br, bi = row[1, on, 0], row[1, on, 1]
            xr, xi = pr * ar - pi * ai, pr * ai + pi * ar
            zr, zi = qr * br + qi * bi, qr * bi - qi * br
            to_u[i, 0] = xr + zr
            to_u[i, 1] = xi + zi
            to_d[i, 0] = xr - zr
            to_d[i, 1] = xi - zi


@_part
def walk(
    u: Any, d: Any, phase: Any, c: float, s: float, shape: Any, row: Any, to_u: Any, to_d: Any
) -> None:
    """One step."""
    if len(phase) == len(u):
        line_step(u, d, phase, c, s, to_u, to_d)
    else:
        plane_step(u, d, phase, c, s, shape, row, to_u, to_d)


@_part
def keep(u: Any, d: Any, spare: Any) -> None:
    """Copy spare [2, sites, 2] into both components. (An assignment of slices compiles longer.)"""
    for x in range(len(u)):
        for part in range(2):
            u[x, part] = spare[0, x, part]
            d[x, part] = spare[1, x, part]


@_part
def raise_links(link: Any, phase: Any, control: Any) -> None:
    """Add a control [links] to the gauge field, and follow it up with the phases."""
    for i in range(len(link)):
        link[i] += control[i]
        phase[i, 0] = math.cos(link[i])
        phase[i, 1] = math.sin(link[i])


@_part
def _mix(u: Any, d: Any) -> None:
    for i in range(len(u)):
        for part in range(2):
            a, b = u[i, part], d[i, part]
            u[i, part] = _HALF * (a + b)
            d[i, part] = _HALF * (a - b)


@_part
def _unshift(u: Any, d: Any, phase: Any, first: int, shape: Any, axis: int, spare: Any) -> None:
    """Undo a shift along an axis of `shape`, whose links begin at `first`; spare [2, sites, 2]."""
    rows, n = shape[0], shape[1]
    for r in range(rows):
        for y in range(n):
            x = r * n + y
            if axis == 0:
                ahead = x + n if r < rows - 1 else y
            else:
                ahead = x + 1 if y < n - 1 else x + 1 - n
            pr, pi = phase[first + x, 0], phase[first + x, 1]
            ur, ui, dr, di = u[ahead, 0], u[ahead, 1], d[x, 0], d[x, 1]
            spare[0, x, 0] = pr * ur + pi * ui
            spare[0, x, 1] = pr * ui - pi * ur
            spare[1, ahead, 0] = pr * dr - pi * di
            spare[1, ahead, 1] = pr * di + pi * dr
    keep(u, d, spare)


@_part
def slopes(
    u: Any, d: Any, at_u: Any, at_d: Any, first: int, shape: Any, axis: int, slope: Any
) -> None:
    """Add to `slope` what the links of an axis do to a number with gradients at_u, at_d.

    u, d: the field after the shift.
    """
    rows, n = shape[0], shape[1]
    for r in range(rows):
        for y in range(n):
            x = r * n + y
            if axis == 0:
                ahead = x + n if r < rows - 1 else y
            else:
                ahead = x + 1 if y < n - 1 else x + 1 - n
            moved_on = at_u[ahead, 1] * u[ahead, 0] - at_u[ahead, 0] * u[ahead, 1]
            moved_back = at_d[x, 1] * d[x, 0] - at_d[x, 0] * d[x, 1]
            slope[first + x] += moved_on - moved_back


@_part
def _untoss(u: Any, d: Any, c: float, s: float, plane: bool) -> None:
    for i in range(len(u)):
        ur, ui, dr, di = u[i, 0], u[i, 1], d[i, 0], d[i, 1]
        if plane:
            u[i, 0], u[i, 1] = c * ur + s * dr, c * ui + s * di
            d[i, 0], d[i, 1] = c * dr - s * ur, c * di - s * ui
        else:
            u[i, 0], u[i, 1] = c * ur - s * di, c * ui + s * dr
            d[i, 0], d[i, 1] = c * dr - s * ui, c * di + s * ur


@_part
def undo_walk(u: Any, d: Any, phase: Any, c: float, s: float, shape: Any, spare: Any) -> None:
    """One step undone, in place; spare [2, sites, 2] is overwritten."""
    plane = len(phase) > len(u)
    if plane:
        _mix(u, d)
        _unshift(u, d, phase, len(u), shape, 1, spare)
        _mix(u, d)
        _unshift(u, d, phase, 0, shape, 0, spare)
    else:
        _unshift(u, d, phase, 0, shape, 1, spare)
    _untoss(u, d, c, s, plane)


@_compile
def propagate(
    u: Any,
    d: Any,
    link: Any,
    phase: Any,
    control: Any,
    first: int,
    steps: int,
    c: float,
    s: float,
    shape: Any,
    row: Any,
    spare: Any,
) -> None:
    """Steps `first`, `first` + 1, … under a control [all steps, links], in place.

    An empty control leaves the links as they are. phase [links, 2] must be that of `link`.
    row [2, sites of a row, 2] and spare [2, sites, 2] are overwritten.
    """
    for t in range(steps):
        if len(control) > 0:
            raise_links(link, phase, control[first + t])
        if t % 2 == 0:
            walk(u, d, phase, c, s, shape, row, spare[0], spare[1])
        else:
            walk(spare[0], spare[1], phase, c, s, shape, row, u, d)
    if steps % 2 == 1:
        keep(u, d, spare)


@_compile
def run_forward(
    u: Any, d: Any, link: Any, control: Any, c: float, s: float, shape: Any, work: Any
) -> None:
    """`propagate` through all steps of a control [steps, links].

    work: (phase, row, spare) as `propagate` has them.
    """
    phase, row, spare = work
    propagate(u, d, link, phase, control, 0, len(control), c, s, shape, row, spare)


@_compile
def run_backward(
    u: Any,
    d: Any,
    link: Any,
    control: Any,
    c: float,
    s: float,
    shape: Any,
    work: Any,
    at_u: Any,
    at_d: Any,
    slope: Any,
) -> None:
    """Undo `run_forward`, and find how a number after it depends on the links at every step.

    at_u, at_d: gradients [sites, 2] of the number, which become those before the steps.
    slope [steps, links]: receives its derivative by the link of that step, others being as they
    are.
    """
    phase, _, spare = work
    plane = len(phase) > len(u)
    for t in range(len(control) - 1, -1, -1):
        for i in range(len(link)):
            slope[t, i] = 0.0
        for axis in range(2 if plane else 1):  # the last to be shifted comes first
            first = len(u) if plane and axis == 0 else 0
            along = 0 if plane and axis == 1 else 1
            if plane:
                if axis == 0:
                    _mix(u, d)
                    _mix(at_u, at_d)
            slopes(u, d, at_u, at_d, first, shape, along, slope[t])
            _unshift(u, d, phase, first, shape, along, spare)
            _unshift(at_u, at_d, phase, first, shape, along, spare)
            if plane and axis == 0:
                _mix(u, d)
                _mix(at_u, at_d)
        _untoss(u, d, c, s, plane)
        _untoss(at_u, at_d, c, s, plane)
        for i in range(len(link)):
            link[i] -= control[t, i]
            phase[i, 0] = math.cos(link[i])
            phase[i, 1] = math.sin(link[i])
