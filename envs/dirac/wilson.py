"""The Dirac equation on a ring in continuous time: an antisymmetric generator, doublers, U(1).

Real form  d(a, b)/dt = [[-D, M], [-M, D]] (a, b), D the central difference, spacing 1,
           M = m + r (1 - cos k), r the Wilson term: w^2 = sin^2 k + M(k)^2
Complex    the same for complex (a, b), whose hops from a site to the one ahead take the factor
           exp(i A_x) of their link (and exp(-i A_x) back), and whose phase turns by A_t on a site:
           (a, b) -> exp(i chi) (a, b), A_x -> A_x + chi(ahead) - chi, A_t -> A_t + d(chi)/dt
Time step  Cayley: (1 - G dt / 2)^-1 (1 + G dt / 2), which keeps the norm if G is antisymmetric

With r = 0 four waves have the least frequency m, two of them at k = pi (fermion doubling); the
Wilson term lifts these (Wilson 1974). All matrices are dense and act on [a of all sites, b of all].
"""

from __future__ import annotations

import numpy as np


def dirac_generator(
    sites: int, mass: float, wilson: float = 0.0, *, symmetric_mass: bool = False
) -> np.ndarray:
    """G [2 sites, 2 sites]; symmetric_mass puts [[-D, M], [M, D]] in its place, as a contrast."""
    ahead = np.roll(np.eye(sites), 1, 1)
    difference = 0.5 * (ahead - ahead.T)
    masses = (mass + wilson) * np.eye(sites) - 0.5 * wilson * (ahead + ahead.T)
    sign = 1.0 if symmetric_mass else -1.0
    return np.block([[-difference, masses], [sign * masses, difference]])


def gauged_generator(
    time_part: np.ndarray, space_part: np.ndarray, mass: float, wilson: float = 0.0
) -> np.ndarray:
    """G for complex fields, with a gauge field: A_t of sites and A_x of links, each [sites]."""
    sites = len(time_part)
    ahead = np.diag(np.exp(-1j * space_part)) @ np.roll(np.eye(sites), 1, 1)
    back = ahead.conj().T
    difference = 0.5 * (ahead - back)
    masses = (mass + wilson) * np.eye(sites) - 0.5 * wilson * (ahead + back)
    turn = np.kron(np.eye(2), np.diag(1j * time_part))
    return np.block([[-difference, masses], [-masses, difference]]) + turn


def dirac_frequencies(sites: int, mass: float, wilson: float = 0.0) -> np.ndarray:
    """w [2 sites], both signs, in order."""
    k = 2 * np.pi * np.arange(sites) / sites
    w = np.sqrt(np.sin(k) ** 2 + (mass + wilson * (1 - np.cos(k))) ** 2)
    return np.sort(np.concatenate([-w, w]))


def cayley_step(generator: np.ndarray, dt: float) -> np.ndarray:
    """The matrix of one step."""
    half = 0.5 * dt * generator
    unit = np.eye(len(half))
    return np.linalg.solve(unit - half, unit + half)


def cayley_phase(frequency: np.ndarray, dt: float) -> np.ndarray:
    """By what angle a Cayley step turns a wave of a frequency."""
    return 2 * np.arctan(0.5 * dt * frequency)


def gauge_components(wilson: float = 0.0) -> list[tuple[str, str, str, str]]:
    """Which entries of the weights carry which part of the gauge field.

    Rows (part of the field, "from -> to", component "to <- from", change of the weight per radian
    in its real form): neurons are Re and Im of a and b; found from the dense weights of a ring
    by a change of one A_t and of one A_x.
    """
    sites, here, ahead = 6, 2, 3
    zero, rows = np.zeros(sites), []
    for name, part in (("A_t", 0), ("A_x", 1)):
        change = np.zeros((2, sites))
        change[part, here] = 1e-6
        plus = gauged_generator(change[0], change[1], 1.0, wilson)
        slope = (plus - gauged_generator(zero, zero, 1.0, wilson)) / 1e-6
        for place, column in ((here, here), (ahead, here), (here, ahead)):
            for to, origin in ((a, b) for a in range(2) for b in range(2)):
                weight = slope[to * sites + place, origin * sites + column]
                if abs(weight) < 1e-3:
                    continue
                sort = {(here, here): "site -> itself", (ahead, here): "site -> ahead"}
                route = sort.get((place, column), "ahead -> site")
                entries = "ab"[to] + " <- " + "ab"[origin]
                rows.append((name, route, entries, _real_form(weight)))
    return rows


def _real_form(weight: complex) -> str:
    """What a complex weight is between real and imaginary parts."""
    real, imaginary = round(weight.real, 3) + 0.0, round(weight.imag, 3) + 0.0
    parts = []
    if real:
        parts.append(f"Re <- Re, Im <- Im: {real:+g}")
    if imaginary:
        parts.append(f"Im <- Re: {imaginary:+g}, Re <- Im: {-imaginary:+g}")
    return "; ".join(parts)
