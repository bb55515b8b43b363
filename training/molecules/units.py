"""Units of reference data: what they may be, and whether numbers look like Angstrom and eV.

A file rarely says its units. They are judged by what does not depend on the system: atoms that are
bonded lie about as far apart as their covalent radii add up to (noble gases: as their van der Waals
radii), forces near 300 K have a typical size, and bonds of hydrogen to carbon, nitrogen or oxygen
have a typical stiffness. In atomic units distances are 1.89 times and stiffnesses 0.01 times that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...envs.core.physics.cell import nearest_image_array
from ...envs.core.physics.units import BOHR, HARTREE

LENGTHS = {"angstrom": 1.0, "bohr": BOHR, "nm": 10.0}  # Angstrom
ENERGIES = {  # eV
    "ev": 1.0,
    "hartree": HARTREE,
    "rydberg": HARTREE / 2,
    "kcal": 0.0433641043,  # per mol
    "kj": 0.0103642696,
}
USUAL = (  # what is proposed where Angstrom and eV are not plausible, the likely ones first
    "bohr-hartree",
    "angstrom-hartree-bohr",
    "nm-kj",
    "angstrom-kcal",
    "angstrom-kj",
    "bohr-ev-angstrom",
    "angstrom-ev-bohr",
    "bohr-ev",
    "bohr-rydberg",
    "angstrom-rydberg-bohr",
    "angstrom-hartree",
)

FORCES = (0.1, 8.0)  # eV/Angstrom, rms component where light atoms are bonded, near 300 K
WEAK = 0.005  # where they are not, as in liquid argon
BOND = 1.7  # Angstrom, below which atoms are bonded
APART = (0.45, 1.4)  # nearest neighbours over the sum of their radii
STIFF = (0.7, 1.4)  # of bonds of hydrogen, over the typical ones; 1.89 is a bohr for an Angstrom
BONDS = {  # of hydrogen, by the other atom: eV/Angstrom^2 at a length in Angstrom
    6: (31.0, 1.10),
    7: (38.0, 1.03),
    8: (40.0, 0.98),
}
_MORSE = 2.2  # 1/Angstrom: bonds are softer where they are longer
NOBLE = (2, 10, 18, 36, 54)
_FRAMES, _ATOMS = 24, 128  # that are looked at, at most
_WIDE = 12.0  # Angstrom between the faces of a cell, in which the nearest image is the rounded one
_PAIRS = 8  # needed to judge stiffness or sign


class Units(NamedTuple):
    """Lengths of positions and cells, energies, and the length in the unit of forces."""

    length: str
    energy: str
    force_length: str

    @property
    def scales(self) -> tuple[float, float, float]:
        """Angstrom, eV and eV/Angstrom of one unit of length, energy and force."""
        energy = ENERGIES[self.energy]
        return LENGTHS[self.length], energy, energy / LENGTHS[self.force_length]

    def __str__(self) -> str:
        lengths = {"angstrom": "Angstrom", "bohr": "bohr", "nm": "nm"}
        energies = {
            "ev": "eV",
            "hartree": "Hartree",
            "rydberg": "Rydberg",
            "kcal": "kcal/mol",
            "kj": "kJ/mol",
        }
        energy, length = energies[self.energy], lengths[self.force_length]
        return f"{lengths[self.length]}, {energy}/{length}"


OURS = Units("angstrom", "ev", "angstrom")


def parse_units(text: str) -> Units | None:
    """Units from LENGTH-ENERGY or LENGTH-ENERGY-LENGTH of forces; None for "auto"."""
    if text == "auto":
        return None
    words = text.lower().split("-")
    lengths = [*words[:1], *words[2:]]
    if (
        len(words) not in (2, 3)
        or words[1] not in ENERGIES
        or any(word not in LENGTHS for word in lengths)
    ):
        raise ValueError(
            f"units {text!r} must be auto, LENGTH-ENERGY or LENGTH-ENERGY-LENGTH (the last one of "
            f"forces), lengths {', '.join(LENGTHS)}, energies {', '.join(ENERGIES)}"
        )
    return Units(words[0], words[1], words[-1] if len(words) == 3 else words[0])


class Look(NamedTuple):
    """What units are judged by.

    nearest: smallest distance.  apart: distances of nearest neighbours over the sum of their radii,
    the typical one and that of the closest tenth.  rms: of force components.  slope: how the force
    on hydrogen falls as its bond to `partner` grows, at the length `bond`; NaN where it does not
    show, negative for a gradient.
    """

    nearest: float
    apart: float
    closest: float
    rms: float
    slope: float = np.nan
    bond: float = np.nan
    partner: int = 0

    @property
    def stiffness(self) -> float:
        """Of the bonds of hydrogen over the typical one at their length."""
        if self.partner not in BONDS:
            return np.nan
        typical, length = BONDS[self.partner]
        stretch = np.exp(-_MORSE * (self.bond - length))
        return float(self.slope / (typical * max(2 * stretch**2 - stretch, 0.3)))

    def scaled(self, units: Units) -> Look:
        """The same, if the numbers are in other units."""
        length, _, force = units.scales
        return Look(
            self.nearest * length,
            self.apart * length,
            self.closest * length,
            self.rms * force,
            self.slope * force / length,
            self.bond * length,
            self.partner,
        )


def look(positions: np.ndarray, forces: np.ndarray, numbers: np.ndarray, cell: np.ndarray) -> Look:
    """What the numbers of frames [frames, atoms, 3] look like, from some frames and atoms."""
    bonds = _bonds(positions, forces, numbers, cell)
    return Look(
        float(bonds.nearest.min()),
        float(np.median(bonds.apart)),
        float(np.quantile(bonds.apart, 0.1)),
        float(np.sqrt((forces**2).mean())),
        *_slope(bonds),
    )


def complaint(seen: Look) -> str | None:
    """What is wrong with numbers that are taken for Angstrom and eV; None where nothing is."""
    low, high = APART
    if seen.apart < low:
        return (
            f"the smallest distance is {seen.nearest:.3g} Angstrom: perhaps positions are in "
            f"nanometres or other units"
        )
    if seen.closest > high:
        return (
            f"neighbours are {seen.apart:.2f} times as far apart as atoms that touch (the smallest "
            f"distance is {seen.nearest:.3g} Angstrom): perhaps positions are in bohr"
        )
    if seen.nearest < 0.3:
        return f"two atoms are {seen.nearest:.3g} Angstrom apart"
    least = FORCES[0] if seen.nearest < BOND else WEAK
    if not least <= seen.rms <= FORCES[1]:
        hint = (
            "Hartree/bohr (multiply by 51.422)" if seen.rms < least else "kcal/mol or kJ/mol per A"
        )
        return (
            f"forces have an rms of {seen.rms:.3g} eV/Angstrom per component, outside "
            f"{least:g} to {FORCES[1]:g}: perhaps they are in {hint}"
        )
    if np.isfinite(seen.stiffness) and not STIFF[0] <= abs(seen.stiffness) <= STIFF[1]:
        return (
            f"bonds of hydrogen are {abs(seen.stiffness):.2f} times as stiff as usual: perhaps "
            f"forces or positions are in other units"
        )
    return None


def require_plausible(source: str, seen: Look) -> None:
    """Raise ValueError, with the units that would do, for what is not in Angstrom and eV."""
    wrong = complaint(seen)
    if wrong is None:
        return
    fits = [name for name in USUAL if complaint(seen.scaled(Units(*_words(name)))) is None]
    would = f" ({', '.join(fits[:3])} would do)" if fits else ""
    raise ValueError(
        f"{source}: {wrong}; say --units{would}, or --units angstrom-ev if that is what they are"
    )


def sign_hint(seen: Look) -> str | None:
    """What to say where forces push stretched bonds further apart."""
    if seen.slope < 0:
        return "forces have the sign of a gradient (they push stretched bonds further apart)"
    return None


def _words(name: str) -> tuple[str, str, str]:
    words = name.split("-")
    return words[0], words[1], words[-1] if len(words) == 3 else words[0]


class _Bonds(NamedTuple):
    """Atoms and the neighbour that each one touches most, [frames, atoms] of those looked at.

    apart: distance over the sum of radii.  pull: force on the atom away from the neighbour.
    nearest: smallest distance to any atom.
    """

    atom: np.ndarray
    neighbour: np.ndarray
    distance: np.ndarray
    apart: np.ndarray
    pull: np.ndarray
    nearest: np.ndarray


def _bonds(
    positions: np.ndarray, forces: np.ndarray, numbers: np.ndarray, cell: np.ndarray
) -> _Bonds:
    from ase.data import covalent_radii, vdw_radii

    radii = np.where(np.isin(numbers, NOBLE), vdw_radii[numbers], covalent_radii[numbers])
    chosen = _spread(len(numbers), min(_ATOMS, max(8, 2**15 // len(numbers))))
    rows = []
    for k in _spread(len(positions), _FRAMES):
        vectors = positions[k, chosen, None] - positions[k]
        vectors, distance = _nearest_images(vectors, cell[k], chosen)
        apart = distance / (radii[chosen, None] + radii)
        other = apart.argmin(1)
        each = np.arange(len(chosen))
        along = vectors[each, other] / np.maximum(distance[each, other], 1e-12)[:, None]
        rows.append(
            (
                numbers[chosen],
                numbers[other],
                distance[each, other],
                apart[each, other],
                (forces[k, chosen] * along).sum(-1),
                distance.min(1),
            )
        )
    return _Bonds(*(np.stack(column) for column in zip(*rows, strict=True)))


def _nearest_images(
    vectors: np.ndarray, cell: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [chosen, atoms, 3] to the nearest images, and lengths; an atom is not its neighbour.

    In a small cell, where the nearest image may not be that of the rounded vector or may be one of
    the atom itself, all images around are looked at.
    """
    from ase.geometry import minkowski_reduce

    itself = np.arange(len(chosen)), chosen
    if not cell.any():
        distance = np.sqrt((vectors**2).sum(-1))
        distance[itself] = np.inf
        return vectors, distance
    reduced, _ = minkowski_reduce(cell)
    inverse = np.linalg.inv(reduced)
    vectors = nearest_image_array(vectors, reduced)
    narrow = 1 / np.linalg.norm(inverse, axis=0).max()
    if narrow > _WIDE:
        distance = np.sqrt((vectors**2).sum(-1))
        distance[itself] = np.inf
        return vectors, distance
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    images = vectors[:, :, None] + steps @ reduced
    distance = np.sqrt((images**2).sum(-1))
    distance[(*itself, np.full(len(chosen), 13))] = np.inf
    best = distance.argmin(-1)[..., None]
    return (
        np.take_along_axis(images, best[..., None], 2)[:, :, 0],
        np.take_along_axis(distance, best, 2)[:, :, 0],
    )


def _slope(bonds: _Bonds) -> tuple[float, float, int]:
    """Slope, length and partner of the bonds of hydrogen that are the most; see `Look`."""
    mask = (bonds.atom == 1) & np.isin(bonds.neighbour, list(BONDS))
    if mask.sum() < _PAIRS:
        return np.nan, np.nan, 0
    partner = int(np.bincount(bonds.neighbour[mask]).argmax())
    mask &= bonds.neighbour == partner
    length = float(np.median(bonds.distance[mask]))
    mask &= abs(bonds.distance / length - 1) < 0.15
    d, pull = bonds.distance[mask], bonds.pull[mask]
    if len(d) < _PAIRS or d.std() < 1e-3 * length or pull.std() == 0:
        return np.nan, length, partner
    if abs(np.corrcoef(d, pull)[0, 1]) < 0.8:
        return np.nan, length, partner
    return float(-np.polyfit(d, pull, 1)[0]), length, partner


def _spread(count: int, most: int) -> np.ndarray:
    """At most `most` indices spread over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
