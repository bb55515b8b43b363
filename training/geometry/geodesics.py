"""Shortest paths under a metric: batches of them, smooth or as polylines.

A path is x(s) = a + s (b - a) + sum_k c_k f_k(s), 0 <= s <= 1, with functions that vanish at both
ends, and its energy E = integral of v.g(x).v ds, v = dx/ds. The path of least energy is the
shortest, run through at constant speed (E = length^2).

    basis "polynomial"   f_k = integral of Legendre's P_k, k = 1 ... order; 64 Gauss nodes.
                         The error falls exponentially with the order where the metric is smooth
    basis "points"       hats at the corners of a polyline of `order` segments, for rough metrics

c is found by quasi-Newton steps (BFGS) from the exact inverse Hessian of the metric as it is along
the straight line. Coordinates and arrays: points [pairs, nodes, d], c [pairs, functions, d].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.validation import require_choice, require_count
from .fields import (
    DifferenceField,
    Field,
    Window,
    as_array,
    evaluated,
    require_finite,
    require_positive,
)
from .grid_paths import grid_paths

BASES = {"polynomial": 14, "points": 64}  # and their orders
_NODES = 64
_STIFF = 1e4  # energy, over that of the straight line, of a path one window outside of it
_ENOUGH = 1e-15  # relative gain of energy from which on a step is not worth it
_SAME = 1e-12  # relative difference of lengths that says nothing
_DIFFERENCE = 1e-3  # step of differences, over the length of the straight line


class Path(NamedTuple):
    """Shortest paths between pairs of points; without the axis [pairs] for one pair.

    points [pairs, n_points, d]: at equal steps of s, so of length.  length [pairs].
    bend [pairs]: largest distance from the straight line over the distance of the ends, both plain.
    ratio [pairs]: length over that of the straight line.  converged [pairs]: whether the steps
    sufficed.  outside [pairs]: part of the path that lies on the wall of the window.
    """

    points: np.ndarray
    length: Any
    bend: Any
    ratio: Any
    converged: Any
    outside: Any


class _Rule(NamedTuple):
    """The functions at nodes: values, slopes [nodes, functions]; weights, s [nodes]."""

    values: np.ndarray
    slopes: np.ndarray
    weights: np.ndarray
    s: np.ndarray


def geodesic(
    metric: Callable[[Any], Any],
    a: Any,
    b: Any,
    *,
    basis: str = "polynomial",
    order: int | None = None,
    window: tuple[Any, Any] | None = None,
    n_points: int = 101,
    starts: int = 1,
    steps: int = 300,
    grid: int | None = None,
) -> Path:
    """Shortest paths from a to b, [d] or [pairs, d], under a metric [m, d] -> [m, d, d].

    metric: an estimate, a table, or any function of float64 arrays; of the last the derivatives
        are taken by differences.
    basis, order: see the module; None: 14 functions, or 64 segments.
    window: (lowest [d], highest [d]) coordinates that a path may have; None: that of the metric, if
        it knows one. The metric is never asked outside. A path that would leave is pressed back,
        and what still lies outside is laid on the wall before the length is measured.
    starts: straight at first, then bent to either side; the shortest of all is given, and the
        straight line itself where none is shorter (`converged` is False there).
    steps: quasi-Newton steps at most.
    grid: of two coordinates in a window: one more start is the shortest path along the edges of a
        grid of so many nodes a side. It finds a way round walls that the other starts stick at.
    Raises ValueError for points outside the window, and for a metric that is not finite and
    positive on the straight line.
    """
    require_choice("basis", basis, BASES)
    order = BASES[basis] if order is None else order
    require_count("order", order, 1 if basis == "polynomial" else 2, 1000)
    require_count("n_points", n_points, 2)
    require_count("starts", starts)
    require_count("steps", steps)
    first, last, alone = _ends(a, b)
    if window is None and isinstance(metric, Field):
        walls = metric.window
    else:
        walls = _walls(window, first.shape[1])
    _require_inside(walls, a=first, b=last)
    if grid is not None:
        require_count("grid", grid, 4, 1000)
        if walls is None or first.shape[1] != 2:
            raise ValueError(f"grid={grid} needs a window of two coordinates")
    problem = _Problem(metric, first, last, _make_rule(basis, order), walls)
    c = problem.start(0)
    fine = _fine_rule(basis, order)
    unsolved = np.zeros(len(first), bool)
    measured = _measured(problem, c, unsolved, fine)
    trials = [problem.solve(problem.start(start), steps) for start in range(starts)]
    if grid is not None:
        assert walls is not None
        begun = _grid_start(problem, walls, grid, basis, order)
        trials += [(begun, unsolved), problem.solve(begun, steps)]
    for number, (trial, converged) in enumerate(trials):
        new = _measured(problem, trial, converged, fine)
        better = new.length < measured.length * (1 if number else 1 + _SAME)
        fields = zip(new, measured, strict=True)
        measured = _Measured(*(np.where(better, this, that) for this, that in fields))
        c = np.where(better[:, None, None], trial, c)
    points = problem.inside(problem.points(c, _at(basis, order, np.linspace(0, 1, n_points))))
    points[:, 0], points[:, -1] = first, last
    bend = _bend(points)
    if not alone:
        return Path(points, measured.length, bend, *measured[1:])
    ratio, converged, outside = (value[0].item() for value in measured[1:])
    return Path(points[0], float(measured.length[0]), float(bend[0]), ratio, converged, outside)


def _grid_start(problem: _Problem, walls: Window, nodes: int, basis: str, order: int) -> np.ndarray:
    """Coefficients [pairs, functions, d] of the shortest paths along the edges of a grid."""
    s = np.arange(1, order) / order if basis == "points" else problem.rule.s
    rule = _at(basis, order, s)
    assert problem.field is not None
    last = problem.first + problem.chord
    points = grid_paths(problem.field, problem.first, last, walls, nodes, s)
    away = points - problem.points(problem.start(0), rule)
    return np.stack([np.linalg.lstsq(rule.values, one, rcond=None)[0] for one in away])


class _Measured(NamedTuple):
    length: np.ndarray
    ratio: np.ndarray
    converged: np.ndarray
    outside: np.ndarray


class _Problem:
    """Energies of paths and their gradients, in units of the energy of the straight lines."""

    def __init__(
        self,
        metric: Callable[[Any], Any],
        first: np.ndarray,
        last: np.ndarray,
        rule: _Rule,
        walls: Window | None,
    ) -> None:
        self.first, self.chord, self.rule, self.walls = first, last - first, rule, walls
        self._same = ~self.chord.any(1)
        pairs, d = first.shape
        straight = first[:, None] + rule.s[:, None] * self.chord[:, None]
        flat = straight.reshape(-1, d)
        places = np.concatenate([first, last, flat])
        along = evaluated(metric, places)
        require_positive(along, places)
        self._straight = along[2 * pairs :].reshape(pairs, -1, d, d)
        squares = np.einsum("pi,pjik,pk->pj", self.chord, self._straight, self.chord)
        self._unit = np.where(self._same, 1.0, squares @ rule.weights)
        self.field = metric if isinstance(metric, Field) else None
        if self.field is None:
            self.field = DifferenceField(metric, self._difference_steps(), walls)

    def _difference_steps(self) -> np.ndarray:
        """Steps [d] that are a small part of the shortest of the straight lines, and of |x|."""
        largest = np.sqrt(np.einsum("pjii->pji", self._straight).max((0, 1)))
        length = np.sqrt(self._unit[~self._same]).min(initial=np.inf)
        steps = _DIFFERENCE * (length if np.isfinite(length) else 1.0) / largest
        size = np.abs(np.stack([self.first, self.first + self.chord])).max((0, 1))
        widest = _DIFFERENCE * np.where(size > 0, size, np.inf)
        return np.minimum(steps, widest)

    def points(self, c: np.ndarray, rule: _Rule, chosen: Any = slice(None)) -> np.ndarray:
        straight = self.first[chosen, None] + rule.s[:, None] * self.chord[chosen, None]
        return straight + rule.values @ c

    def velocities(self, c: np.ndarray, rule: _Rule, chosen: Any = slice(None)) -> np.ndarray:
        return self.chord[chosen, None] + rule.slopes @ c

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Points laid on the walls where they are outside."""
        return points if self.walls is None else np.clip(points, *self.walls)

    def start(self, number: int) -> np.ndarray:
        """Coefficients [pairs, functions, d] of a start: straight, then bent to either side."""
        pairs, d = self.chord.shape
        c = np.zeros((pairs, self.rule.values.shape[1], d))
        if number == 0 or d == 1:
            return c
        mean = np.einsum("j,pjik->pik", self.rule.weights, self._straight)
        factor = np.swapaxes(np.linalg.cholesky(mean), 1, 2)
        along = np.einsum("pik,pk->pi", factor, self.chord)
        length = np.linalg.norm(along, axis=1, keepdims=True)
        along = along / np.where(length > 0, length, 1)
        side = np.random.default_rng((number + 1) // 2).normal(size=(pairs, d))
        side -= (side * along).sum(1, keepdims=True) * along
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        side *= (-1) ** number * 0.3 * ((number + 1) // 2) * length
        across = np.linalg.solve(factor, side[..., None])[..., 0]
        arch = 4 * self.rule.s * (1 - self.rule.s)
        return np.linalg.lstsq(self.rule.values, arch, rcond=None)[0][:, None] * across[:, None]

    def solve(self, c: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of least energy from those given, and which of them have converged."""
        pairs, functions, d = c.shape
        rule = self.rule
        hessian = np.einsum(
            "j,jk,jl,pjab->pkalb", 2 * rule.weights, rule.slopes, rule.slopes, self._straight
        ).reshape(pairs, functions * d, functions * d)
        inverse = np.linalg.inv(hessian / self._unit[:, None, None])
        x, converged = minimised(
            lambda x, chosen: self._energy(x.reshape(-1, functions, d), chosen),
            c.reshape(pairs, -1),
            inverse,
            steps,
        )
        return x.reshape(c.shape), converged | self._same

    def _energy(self, c: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies [chosen] and gradients [chosen, functions * d]."""
        rule, (pairs, _, d) = self.rule, c.shape
        points = self.points(c, rule, chosen)
        velocity = self.velocities(c, rule, chosen)
        inside = self.inside(points)
        assert self.field is not None
        g, slope = self.field.with_gradient(inside.reshape(-1, d))
        g = g.reshape(pairs, -1, d, d)
        squares = (velocity[..., :, None] * velocity[..., None, :]).reshape(pairs, -1, 1, d * d)
        push = (squares @ slope.reshape(pairs, -1, d * d, d))[:, :, 0]
        pull = (g @ velocity[..., None])[..., 0]
        unit = self._unit[chosen]
        energy = ((velocity * pull).sum(2) @ rule.weights) / unit
        push = push * (inside == points) / unit[:, None, None]
        if self.walls is not None:
            width = self.walls[1] - self.walls[0]
            excess = (points - inside) / width
            energy = energy + _STIFF * ((excess**2).sum(2) @ rule.weights)
            push = push + 2 * _STIFF * excess / width
        weights = rule.weights[:, None]
        gradient = (weights * rule.values).T @ push
        gradient += (2 * weights * rule.slopes).T @ (pull / unit[:, None, None])
        return np.where(np.isfinite(energy), energy, np.inf), gradient.reshape(pairs, -1)


def minimised(
    function: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    x: np.ndarray,
    inverse: np.ndarray,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Minima [problems, n] of many functions by BFGS with halved steps, and which were reached.

    function: (x [k, n], which problems [k]) -> values [k], gradients [k, n].
    inverse: of the Hessians at first [problems, n, n].
    """
    x = x.copy()
    everyone = np.arange(len(x))
    value, gradient = function(x, everyone)
    initial, inverse = inverse, inverse.copy()
    done = np.zeros(len(x), bool)
    for _ in range(steps):
        active = np.flatnonzero(~done)
        if not len(active):
            break
        step = -np.einsum("pij,pj->pi", inverse[active], gradient[active])
        slope = (step * gradient[active]).sum(1)
        uphill = slope >= 0
        if uphill.any():
            lost = active[uphill]
            inverse[lost] = initial[lost]
            step[uphill] = -np.einsum("pij,pj->pi", inverse[lost], gradient[lost])
            slope = (step * gradient[active]).sum(1)
        done[active] = -slope <= _ENOUGH * np.abs(value[active])
        new_x, new_value, new_gradient = _searched(
            function, active, x[active], value[active], gradient[active], step, slope
        )
        moved, turned = new_x - x[active], new_gradient - gradient[active]
        curvature = (moved * turned).sum(1)
        stuck = ~moved.any(1)
        done[active] |= stuck
        usable = curvature > 1e-10 * np.linalg.norm(moved, axis=1) * np.linalg.norm(turned, axis=1)
        usable &= ~stuck
        chosen = active[usable]
        inverse[chosen] = _updated(inverse[chosen], moved[usable], turned[usable])
        x[active], value[active], gradient[active] = new_x, new_value, new_gradient
    return x, done


def _searched(
    function: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    active: np.ndarray,
    x: np.ndarray,
    value: np.ndarray,
    gradient: np.ndarray,
    step: np.ndarray,
    slope: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first of the steps 1, 1/2, 1/4, ... that lowers each function; none if no one does."""
    x, value, gradient = x.copy(), value.copy(), gradient.copy()
    waiting = np.arange(len(x))
    factor = 1.0
    for _ in range(30):
        trial = x[waiting] + factor * step[waiting]
        new_value, new_gradient = function(trial, active[waiting])
        limit = value[waiting] + 1e-4 * factor * slope[waiting]
        lower = (new_value <= limit) & np.isfinite(new_gradient).all(1)
        found = waiting[lower]
        x[found], value[found], gradient[found] = (
            trial[lower],
            new_value[lower],
            new_gradient[lower],
        )
        waiting = waiting[~lower]
        if not len(waiting):
            break
        factor /= 2
    return x, value, gradient


def _updated(inverse: np.ndarray, moved: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Inverse Hessians [p, n, n] that agree with the last steps (BFGS)."""
    rho = 1 / (moved * turned).sum(1)
    image = np.einsum("pij,pj->pi", inverse, turned)
    scale = rho * (1 + rho * (turned * image).sum(1))
    outer = np.einsum("pi,pj->pij", moved, image) * rho[:, None, None]
    square = np.einsum("p,pi,pj->pij", scale, moved, moved)
    return inverse - outer - np.swapaxes(outer, 1, 2) + square


def _measured(problem: _Problem, c: np.ndarray, converged: np.ndarray, rule: _Rule) -> _Measured:
    """Lengths of paths inside the window, and over those of the straight lines."""
    points = problem.points(c, rule)
    inside = problem.inside(points)
    velocity = problem.velocities(c, rule) * (inside == points)
    straight = problem.first[:, None] + rule.s[:, None] * problem.chord[:, None]
    chord = np.broadcast_to(problem.chord[:, None], velocity.shape)
    length = _length(problem, inside, velocity, rule)
    direct = _length(problem, straight, chord, rule)
    ratio = np.where(direct > 0, length / np.where(direct > 0, direct, 1), 1.0)
    outside = (inside != points).any(2) @ rule.weights
    return _Measured(length, ratio, converged, outside)


def _length(problem: _Problem, points: np.ndarray, velocity: np.ndarray, rule: _Rule) -> np.ndarray:
    pairs, nodes, d = points.shape
    assert problem.field is not None
    g = problem.field(points.reshape(-1, d)).reshape(pairs, nodes, d, d)
    squares = np.einsum("pji,pjik,pjk->pj", velocity, g, velocity)
    return np.sqrt(np.maximum(squares, 0)) @ rule.weights


def _make_rule(basis: str, order: int) -> _Rule:
    """Nodes of the energy: Gauss's for polynomials, the middles of the segments of a polyline."""
    if basis == "polynomial":
        s, weights = _gauss(max(_NODES, 3 * order))
    else:
        s, weights = (np.arange(order) + 0.5) / order, np.full(order, 1 / order)
    return _at(basis, order, s)._replace(weights=weights)


def _fine_rule(basis: str, order: int) -> _Rule:
    """Nodes of the length: more of them, and on every part of a polyline."""
    if basis == "polynomial":
        s, weights = _gauss(max(4 * _NODES, 6 * order))
    else:
        node, weight = _gauss(4)
        s = ((np.arange(order)[:, None] + node) / order).ravel()
        weights = np.tile(weight / order, order)
    return _at(basis, order, s)._replace(weights=weights)


def _gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    node, weight = np.polynomial.legendre.leggauss(n)
    return (node + 1) / 2, weight / 2


def _at(basis: str, order: int, s: np.ndarray) -> _Rule:
    """The functions and their slopes at s [nodes]; weights are left 0."""
    if basis == "polynomial":
        legendre = np.polynomial.legendre.legvander(2 * s - 1, order + 1)
        k = np.arange(1, order + 1)
        norm = np.sqrt(2 * k + 1)
        slopes = legendre[:, 1:-1] * norm
        values = (legendre[:, 2:] - legendre[:, :-2]) / (2 * norm)
    else:
        corner = np.arange(1, order)
        away = s[:, None] * order - corner
        values = np.maximum(1 - np.abs(away), 0)
        slopes = np.where(np.abs(away) < 1, -np.sign(away) * order, 0.0)
    return _Rule(values, slopes, np.zeros(len(s)), s)


def _bend(points: np.ndarray) -> np.ndarray:
    """Largest distance [pairs] of points [pairs, n, d] from the line of their ends, over it."""
    chord = points[:, -1] - points[:, 0]
    length = np.linalg.norm(chord, axis=1)
    along = chord / np.where(length > 0, length, 1)[:, None]
    away = points - points[:, :1]
    away = away - np.einsum("pni,pi->pn", away, along)[..., None] * along[:, None]
    return np.linalg.norm(away, axis=2).max(1) / np.where(length > 0, length, 1)


def _ends(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Both ends as [pairs, d], and whether they were one pair."""
    first, last = as_array("a", a), as_array("b", b)
    for name, end in (("a", first), ("b", last)):
        if end.ndim not in (1, 2) or not end.size:
            raise ValueError(f"{name} has shape {end.shape}; it must be [d] or [pairs, d]")
        require_finite(name, end)
    alone = first.ndim == last.ndim == 1
    first, last = np.atleast_2d(first), np.atleast_2d(last)
    if first.shape[1] != last.shape[1] or len({1, len(first), len(last)}) > 2:
        raise ValueError(f"a has shape {np.shape(a)}, b {np.shape(b)}: they are no pairs of points")
    first, last = np.broadcast_arrays(first, last)
    return first.copy(), last.copy(), alone


def _walls(window: tuple[Any, Any] | None, d: int) -> Window | None:
    if window is None:
        return None
    if len(window) != 2:
        raise ValueError(f"window={window!r} must be two points: the lowest and the highest")
    low, high = (as_array("window", wall) for wall in window)
    if low.shape != (d,) or high.shape != (d,) or not (low < high).all():
        raise ValueError(f"window={window!r} must be lowest and highest coordinates, {d} each")
    return low, high


def _require_inside(walls: Window | None, **ends: np.ndarray) -> None:
    if walls is None:
        return
    for name, end in ends.items():
        outside = ((end < walls[0]) | (end > walls[1])).any(1)
        for i in np.flatnonzero(outside):
            low, high = (wall.tolist() for wall in walls)
            raise ValueError(f"{name}={end[i].tolist()} is outside the window {low} to {high}")
