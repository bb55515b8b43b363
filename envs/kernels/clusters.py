"""Energy and forces of a Lennard-Jones cluster in open space, for local minimisers."""

from __future__ import annotations

from numba import njit

_LEAST = 1e-4  # squared distance below which atoms count as this far apart


@njit(cache=True, error_model="numpy")
def energy_and_gradient(position, gradient):  # type: ignore[no-untyped-def]
    """The energy at `position` [n, 3]; its gradient is written to `gradient` [n, 3]."""
    energy = 0.0
    gradient[:] = 0.0
    for i in range(position.shape[0]):
        for j in range(i):
            x = position[i, 0] - position[j, 0]
            y = position[i, 1] - position[j, 1]
            z = position[i, 2] - position[j, 2]
            inverse = 1.0 / max(x * x + y * y + z * z, _LEAST)
            s6 = inverse * inverse * inverse
            energy += 4.0 * s6 * (s6 - 1.0)
            slope = -24.0 * s6 * (2.0 * s6 - 1.0) * inverse
            gradient[i, 0] += slope * x
            gradient[i, 1] += slope * y
            gradient[i, 2] += slope * z
            gradient[j, 0] -= slope * x
            gradient[j, 1] -= slope * y
            gradient[j, 2] -= slope * z
    return energy
