"""Steering of a Dirac packet: the compiled form of `steer.py`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.kernel import Episode, Kernel
from ..core.kernels.binding import arrays_at
from ..core.kernels.compiling import compiled, compiled_part
from ..core.kernels.reductions import accumulate_metrics, bad_action
from .propagation import keep, propagate, raise_links, walk

PARAMETERS = np.dtype(
    [
        ("rows", np.int64),
        ("columns", np.int64),
        ("cosine", float),
        ("sine", float),
        ("field", float),
        ("effort", float),
        ("scale", float),
        ("faint", float),
        ("densest", float),
        ("urgent", float),
        ("horizon", np.int64),
    ]
)
_HALF = math.sqrt(0.5)

_compile = compiled(error_model="numpy")
_part = compiled_part(error_model="numpy")


class SteerArrays(NamedTuple):
    """The state, in the order of its fields."""

    u: Any
    d: Any
    link: Any
    target_u: Any
    target_d: Any
    centre: Any
    wave_number: Any
    time: Any


class Scratch(NamedTuple):
    """Memory of a step."""

    phase: np.ndarray  # [links, 2]
    control: np.ndarray  # [links]
    row: np.ndarray  # [2, columns, 2]
    spare: np.ndarray  # [2, sites, 2]


def make_scratch(links: int, rows: int, columns: int) -> Scratch:
    """Memory for a world of so many links."""
    return Scratch(
        np.empty((links, 2)),
        np.empty(links),
        np.empty((2, columns, 2)),
        np.empty((2, rows * columns, 2)),
    )


def make_kernel(parameters: np.ndarray, links: int) -> Kernel:
    """The kernel for a `parameter_record` of PARAMETERS."""
    rows, columns = int(parameters["rows"][0]), int(parameters["columns"][0])
    return Kernel(step, observe, parameters, scratch=make_scratch(links, rows, columns))


@_part
def fidelity(
    u: Any, d: Any, link: Any, target_u: Any, target_d: Any, centre: Any, rows: int, columns: int
) -> float:
    """|<target|psi>|^2 in the gauge of whoever stands at the target's centre."""
    plane = len(link) > len(u)
    middle = centre[len(centre) - 1]
    total_r, total_i, along = 0.0, 0.0, 0.0
    for j in range(rows):
        r = (centre[0] - rows // 2 + j) % rows if plane else 0
        first = len(u) + r * columns if plane else 0
        chi = along
        for n in range(columns // 2):
            chi -= link[first + (middle - columns // 2 + n) % columns]
        for n in range(columns):
            y = (middle - columns // 2 + n) % columns
            x = r * columns + y
            real = target_u[x, 0] * u[x, 0] + target_u[x, 1] * u[x, 1]
            real += target_d[x, 0] * d[x, 0] + target_d[x, 1] * d[x, 1]
            imaginary = target_u[x, 0] * u[x, 1] - target_u[x, 1] * u[x, 0]
            imaginary += target_d[x, 0] * d[x, 1] - target_d[x, 1] * d[x, 0]
            cosine, sine = math.cos(chi), math.sin(chi)
            total_r += cosine * real + sine * imaginary
            total_i += cosine * imaginary - sine * real
            chi += link[first + y]
        if plane:
            along += link[r * columns + middle]
    return total_r * total_r + total_i * total_i


@_part
def _norm(u: Any, d: Any) -> float:
    total = 0.0
    for x in range(len(u)):
        total += u[x, 0] ** 2 + u[x, 1] ** 2 + d[x, 0] ** 2 + d[x, 1] ** 2
    return total


@_part
def _wrapped(value: int, side: int) -> int:
    return (value + side // 2) % side - side // 2


@_part
def _clipped(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


@_part
def _observe_axis(
    u: Any,
    d: Any,
    link: Any,
    centre: Any,
    wave_number: Any,
    time: Any,
    parameter: Any,
    axis: int,
    out: Any,
) -> None:
    """Observations [links, size] of the links of an axis of a world."""
    rows, columns, scale, faint = (
        parameter.rows,
        parameter.columns,
        parameter.scale,
        parameter.faint,
    )
    plane = len(link) > len(u)
    sites = len(u)
    turned = plane and axis == 1
    tc, ts = math.cos(wave_number[axis]), math.sin(wave_number[axis])
    left = max(1.0 - time / parameter.horizon, 0.0)
    to_go = max(parameter.horizon - time, 1)
    for r in range(rows):
        for y in range(columns):
            x = r * columns + y
            if plane and axis == 0:
                z = x + columns if r < rows - 1 else y
            else:
                z = x + 1 if y < columns - 1 else x + 1 - columns
            ur, ui, dr, di = u[x, 0], u[x, 1], d[x, 0], d[x, 1]
            vr, vi, er, ei = u[z, 0], u[z, 1], d[z, 0], d[z, 1]
            if turned:
                ur, dr = _HALF * (ur + dr), _HALF * (ur - dr)
                ui, di = _HALF * (ui + di), _HALF * (ui - di)
                vr, er = _HALF * (vr + er), _HALF * (vr - er)
                vi, ei = _HALF * (vi + ei), _HALF * (vi - ei)
            here_u, here_d = ur * ur + ui * ui, dr * dr + di * di
            there_u, there_d = vr * vr + vi * vi, er * er + ei * ei
            here, there = here_u + here_d, there_u + there_d
            density = 0.5 * (here + there)
            per = 1.0 / (density + faint)
            own = axis * sites + x
            # exp(-i (A + k)) of the target's k
            lc, ls = math.cos(link[own]), math.sin(link[own])
            pc, ps = lc * tc - ls * ts, ls * tc + lc * ts
            hr = ur * vr + ui * vi + dr * er + di * ei
            hi = ur * vi - ui * vr + dr * ei - di * er
            mismatch = (hi * pc - hr * ps) * per
            out[own, 0] = min(scale * density, parameter.densest)
            out[own, 1] = 0.5 * (there - here) * per
            out[own, 2] = 0.5 * (here_u - here_d + there_u - there_d) * per
            out[own, 3] = (hr * pc + hi * ps) * per
            out[own, 4] = mismatch
            out[own, 5] = (ur * dr + ui * di + vr * er + vi * ei) * per
            out[own, 6] = (ur * di - ui * dr + vr * ei - vi * er) * per
            along = r if plane and axis == 0 else y
            side = rows if plane and axis == 0 else columns
            offset = _wrapped(along - centre[axis], side) + 0.5
            out[own, 7] = offset
            out[own, 8] = wave_number[axis]
            out[own, 9] = left
            out[own, 10] = _clipped(mismatch / (to_go * parameter.field), parameter.urgent)
            out[own, 11] = _clipped(offset / to_go, parameter.urgent)
            if plane:
                across = y if axis == 0 else r
                width = columns if axis == 0 else rows
                out[own, 12] = _wrapped(across - centre[1 - axis], width)
                out[own, 13] = wave_number[1 - axis]
                up = math.sin(_flux(link, sites, rows, columns, r, y))
                if axis == 0:
                    down = math.sin(_flux(link, sites, rows, columns, r, (y - 1) % columns))
                else:
                    down = math.sin(_flux(link, sites, rows, columns, (r - 1) % rows, y))
                out[own, 14] = up
                out[own, 15] = down


@_part
def _flux(link: Any, sites: int, rows: int, columns: int, r: int, y: int) -> float:
    """Sum of the gauge field around the plaquette ahead of a site."""
    on, beside = (r + 1) % rows, (y + 1) % columns
    first = link[r * columns + y] - link[r * columns + beside]
    return first + link[sites + on * columns + y] - link[sites + r * columns + y]


@_compile
def observe_world(state: Any, w: int, parameter: Any, out: Any) -> None:
    """Observations [links, size] of one world of `SteerArrays`."""
    for axis in range(state.centre.shape[1]):
        _observe_axis(
            state.u[w],
            state.d[w],
            state.link[w],
            state.centre[w],
            state.wave_number[w],
            state.time[w, 0],
            parameter,
            axis,
            out,
        )


@_compile
def observe(arrays: Any, parameters: Any, worlds: Any, out: Any) -> None:
    """Observations of the worlds whose indices are given."""
    state = arrays_at(arrays[0].state, SteerArrays)
    for w in worlds:
        observe_world(state, w, parameters[0], out[w])


@_compile
def step(arrays: Any, parameters: Any, action: Any, observation: Any) -> int:
    """One step of all worlds in place; -1, or the flat index of an agent with a bad action."""
    bad = bad_action(action)
    if bad >= 0:
        return bad
    state = arrays_at(arrays[0].state, SteerArrays)
    memory = arrays_at(arrays[0].scratch, Scratch)
    episode = arrays_at(arrays[0].episode, Episode)
    p = parameters[0]
    links = action.shape[1]
    shape = (p.rows, p.columns)
    for w in range(len(action)):
        u, d, link = state.u[w], state.d[w], state.link[w]
        square = 0.0
        for i in range(links):
            chosen = 1.0 * action[w, i, 0]  # in double precision
            memory.control[i] = p.field * chosen
            square += chosen * chosen
        raise_links(link, memory.phase, memory.control)
        walk(
            u,
            d,
            memory.phase,
            p.cosine,
            p.sine,
            shape,
            memory.row,
            memory.spare[0],
            memory.spare[1],
        )
        keep(u, d, memory.spare)
        state.time[w, 0] += 1
        reached = fidelity(
            u, d, link, state.target_u[w], state.target_d[w], state.centre[w], p.rows, p.columns
        )
        loss = p.effort * square / links / p.horizon
        if state.time[w, 0] == p.horizon:
            loss += 1.0 - reached
        for i in range(links):
            episode.reward[w, i] = loss
        episode.metric[w, 0] = reached
        episode.metric[w, 1] = abs(_norm(u, d) - 1.0)
        observe_world(state, w, p, observation[w])
    accumulate_metrics(arrays[0].episode)
    return -1


@_compile
def run_rollout(state: Any, plan: Any, control: Any, parameters: Any, memory: Any) -> None:
    """A rollout under a control [worlds, horizon or 0, links], radians; no control after it.

    state: SteerArrays; plan: a RolloutPlan, whose records are loss, fidelity and norm error.
    """
    p = parameters[0]
    shape = (p.rows, p.columns)
    links = state.link.shape[1]
    for w in range(len(state.u)):
        u, d, link = state.u[w], state.d[w], state.link[w]
        for i in range(links):
            memory.phase[i, 0] = math.cos(link[i])
            memory.phase[i, 1] = math.sin(link[i])
        for record in range(plan.steps // plan.every):
            loss, to_go = 0.0, plan.every
            while to_go > 0:
                time = state.time[w, 0]
                left = p.horizon - time
                n = to_go if left <= 0 else min(to_go, left)
                steered = n if time < control.shape[1] else 0
                propagate(
                    u,
                    d,
                    link,
                    memory.phase,
                    control[w] if steered > 0 else control[w, :0],
                    time,
                    n,
                    p.cosine,
                    p.sine,
                    shape,
                    memory.row,
                    memory.spare,
                )
                for t in range(time, time + steered):
                    square = 0.0
                    for i in range(links):
                        square += (control[w, t, i] / p.field) ** 2
                    loss += p.effort * square / links / p.horizon
                to_go -= n
                state.time[w, 0] += n
                if n == left:
                    loss += 1.0 - fidelity(
                        u,
                        d,
                        link,
                        state.target_u[w],
                        state.target_d[w],
                        state.centre[w],
                        p.rows,
                        p.columns,
                    )
            plan.records[record, w, 0] = loss / plan.every
            plan.records[record, w, 1] = fidelity(
                u, d, link, state.target_u[w], state.target_d[w], state.centre[w], p.rows, p.columns
            )
            plan.records[record, w, 2] = abs(_norm(u, d) - 1.0)
