"""Boundaries of a lattice through which Klein-Gordon waves leave.

A boundary value u(0, 0) is chosen from the values u(j, l) of the sites j inwards, l steps before:
linearly, with coefficients c of the eight `TAPS`, u(0, 0) = sum c u(j, l).
A wave exp(i k j + i w dt l) that leaves comes back times
R = -(1 - sum c exp(-i k j - i w dt l)) / (1 - sum c exp(i k j - i w dt l)).

The exact law remembers everything: u(0, 0) = sum_l G_l u(1, l), with G the series in the delay of
kappa, kappa + 1 / kappa = 2 + m^2 + (1 / delay - 2 + delay) / dt^2. On a boundary of many sites m^2
is m^2 + 2 - 2 cos q for the wave number q along it.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

TAPS = ((1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2))  # (sites, steps)
CLOSED = 24  # sites between two boundaries of the problem whose waves may not grow
_STABLE = 1 + 1e-10  # rounding of eigenvalues on the unit circle
_WAVES = (0.2, 1.2)  # wave numbers that the best taps are for
_ANGLES = (0.0, 75.0)  # degrees, of waves on a plane
_BETTER = 0.999  # share to which |R|^2 must fall: inside, waves make one combination of taps 0
_ITERATIONS = 8  # of weighted least squares


def exact_memory(squared_mass: np.ndarray, dt: float, length: int) -> np.ndarray:
    """G_1 to G_length [length, modes] for masses whose squares are [modes]."""
    squared_mass = np.asarray(squared_mass, float)
    series = np.zeros((length + 1, len(squared_mass)))
    middle = dt**2 * (2 + squared_mass) - 2
    for n in range(1, length + 1):
        earlier = series[1 : max(n - 1, 1)]
        fed = (earlier * earlier[::-1]).sum(0) + (n == 1)
        before = series[n - 2] if n > 1 else 0.0
        series[n] = dt**2 * fed - middle * series[n - 1] - before
    return series[1:]


def along(sites: int) -> tuple[np.ndarray, np.ndarray]:
    """Waves along a periodic boundary.

    Returns an orthogonal matrix [modes, sites] and 2 - 2 cos q of each mode.
    """
    number, place = np.arange(sites), np.arange(sites)
    q = 2 * math.pi * ((number + 1) // 2) / sites
    phase = np.where(number % 2 == 1, 0.0, math.pi / 2)[:, None]
    waves = np.cos(q[:, None] * place - phase)
    waves[0] = 1.0
    if sites % 2 == 0 and sites > 1:
        waves[-1] = np.cos(math.pi * place)
    return waves / np.linalg.norm(waves, axis=1, keepdims=True), 2 - 2 * np.cos(q)


def first_order(speed: float, dt: float) -> np.ndarray:
    """Coefficients [3, 3] by (sites, steps) of a law that lets waves of that speed out.

    The law says that their sum with u(j, l) is 0; that of u(0, 0) is 1.
    """
    r = (speed * dt - 1) / (speed * dt + 1)
    return np.array([[1.0, r, 0.0], [-r, -1.0, 0.0], [0.0, 0.0, 0.0]])


def higdon(speeds: tuple[float, float], dt: float) -> np.ndarray:
    """Eight taps of the product of two first-order laws (Higdon 1987)."""
    law = product(*(first_order(speed, dt)[:2, :2] for speed in speeds))
    return -np.array([law[tap] for tap in TAPS])


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Coefficients [3, 3] by (sites, steps) of two laws [2, 2] in turn."""
    law = np.zeros((3, 3))
    for j in range(2):
        for step in range(2):
            law[j : j + 2, step : step + 2] += first[j, step] * second
    return law


def mur(dt: float) -> np.ndarray:
    """Eight taps, five of them 0, of the first-order law of speed 1 (Mur 1981)."""
    law = first_order(1.0, dt)
    return -np.array([law[tap] for tap in TAPS])


def frequencies(k: np.ndarray, squared_mass: np.ndarray, dt: float) -> np.ndarray:
    """w dt of leapfrog waves of wave number k across the boundary."""
    return 2 * np.arcsin(dt / 2 * np.sqrt(squared_mass + (2 * np.sin(k / 2)) ** 2))


def reflection(taps: np.ndarray, k: np.ndarray, squared_mass: np.ndarray, dt: float) -> np.ndarray:
    """R [...] of waves k [...], complex."""
    leaving, returning = _waves(k, squared_mass, dt)
    return -(1 - leaving @ taps) / (1 - returning @ taps)


def growth(taps: np.ndarray, squared_masses: np.ndarray, dt: float) -> float:
    """Largest factor per step of what lies between two such boundaries, over the masses."""
    return max(
        float(np.abs(np.linalg.eigvals(closed_step(taps, m2, dt))).max())
        for m2 in np.atleast_1d(squared_masses)
    )


@cache
def best_taps(mass: float, dt: float, plane: bool) -> tuple[float, ...]:
    """Stable taps of least mean |R|^2, found by weighted least squares.

    Where the least squares are unstable, the stable ones closest to them on the way from Higdon's.
    """
    k, squared = sampled_waves(mass, plane)
    masses = np.unique(np.concatenate([squared, [mass**2]]))[:: 1 + len(squared) // 12]
    start = higdon(speeds_of(mass, plane), dt)
    leaving, returning = _waves(k, squared, dt)
    best, least = start, float(np.mean(np.abs(reflection(start, k, squared, dt)) ** 2))
    for ridge in 10.0 ** -np.arange(-1, 15, 0.25):
        taps = start.copy()
        for _ in range(_ITERATIONS):
            weight = 1 / np.abs(1 - returning @ taps)
            rows = weight[:, None] * leaving
            matrix = np.concatenate([rows.real, rows.imag, ridge * np.eye(len(TAPS))])
            sides = np.concatenate([weight, 0 * weight, ridge * start])
            taps = np.linalg.lstsq(matrix, sides, rcond=None)[0]
        score = float(np.mean(np.abs(reflection(taps, k, squared, dt)) ** 2))
        if score < _BETTER * least and growth(taps, masses, dt) <= _STABLE:
            best, least = taps, score
    return tuple(best.tolist())


def speeds_of(mass: float, plane: bool) -> tuple[float, float]:
    """Speeds at which Higdon's two factors let waves out; on a plane those at 30 and 60 degrees."""
    if plane:
        return 1 / math.cos(math.radians(30)), 1 / math.cos(math.radians(60))
    return 1.0, 1.0


def sampled_waves(mass: float, plane: bool) -> tuple[np.ndarray, np.ndarray]:
    """Wave numbers across the boundary, and squared masses that they see, [waves] each."""
    k = np.linspace(*_WAVES, 41)
    if not plane:
        return k, np.full(len(k), mass**2)
    angle = np.radians(np.linspace(*_ANGLES, 16))
    k, angle = (part.ravel() for part in np.meshgrid(k[::4], angle))
    across, beside = k * np.cos(angle), k * np.sin(angle)
    return across, mass**2 + 2 - 2 * np.cos(beside)


def _waves(k: np.ndarray, squared_mass: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Values [..., taps] at the taps of waves that leave and that come back, 1 at (0, 0)."""
    sites, steps = np.array(TAPS).T
    turned = frequencies(k, squared_mass, dt)[..., None] * steps
    inwards = np.asarray(k)[..., None] * sites
    return np.exp(1j * (turned - inwards)), np.exp(1j * (turned + inwards))


def closed_step(taps: np.ndarray, squared_mass: float, dt: float) -> np.ndarray:
    """One step [3 n, 3 n] of values now, a step and two steps before, between two boundaries."""
    n = CLOSED
    step = np.zeros((3 * n, 3 * n))
    for i in range(1, n - 1):
        step[i, i] = 2 - dt**2 * (2 + squared_mass)
        step[i, i - 1] = step[i, i + 1] = dt**2
        step[i, n + i] = -1.0
    for edge, inwards in ((0, 1), (n - 1, -1)):
        for (sites, steps), tap in zip(TAPS, taps, strict=True):
            place = edge + inwards * sites
            if steps == 0:
                step[edge] += tap * step[place]
            else:
                step[edge, n * (steps - 1) + place] += tap
    step[n:, :-n] = np.eye(2 * n)
    return step
