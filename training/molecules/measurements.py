"""What a simulation measures: traces, counted distances, velocities and places, block by block.

blocks/000001.npz holds a block: traces [samples, ...] and places [places, worlds, atoms, 3], the
counted distances, the least ones, and the spectrum [worlds, kinds, frequencies] where the block is
whole. File k is block k, of steps (k - 1) B + 1 to k B.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...envs.core.files import write_atomically
from ...envs.core.physics.units import ATOMIC_WEIGHTS
from .rdf import Counter

BLOCKS = "blocks"
TRACES = ("step", "temperature", "potential", "conserved", "heat", "longest")
_FOLLOWED = 600  # atoms whose velocities are kept for the spectrum


class Measurements:
    """What was measured of a block so far; it can be stored within a block and goes on exactly.

    numbers [atoms]; cells [worlds, 3, 3].
    """

    def __init__(self, numbers: np.ndarray, cells: np.ndarray) -> None:
        self._numbers, self._cells = np.asarray(numbers), cells
        self._mass = np.array(ATOMIC_WEIGHTS)[self._numbers]
        self._followed = followed_atoms(self._numbers)
        heavy = np.flatnonzero(self._numbers != 1)
        self._placed = heavy if len(heavy) else np.arange(len(self._numbers))
        worlds = (len(cells),)
        self._shapes: dict[str, tuple[int, ...]] = dict.fromkeys(TRACES, worlds)
        self._shapes["step"] = ()
        self._shapes["place"] = (*worlds, len(self._placed), 3)
        self._shapes["velocity"] = (*worlds, len(self._followed), 3)
        self.clear()

    def clear(self) -> None:
        """Begin a block."""
        self._rows: dict[str, list[Any]] = {name: [] for name in self._shapes}
        self._counter = Counter(self._cells, self._numbers)

    def add_sample(self, position: np.ndarray, **values: Any) -> None:
        """Positions [worlds, atoms, 3], and the values of all TRACES."""
        for name in TRACES:
            self._rows[name].append(np.array(values[name]))
        self._counter.add(position)

    def add_velocity(self, velocity: np.ndarray) -> None:
        """Velocities [worlds, atoms, 3] for the spectrum, at equal intervals."""
        self._rows["velocity"].append(velocity[:, self._followed].astype(np.float32))

    def add_place(self, position: np.ndarray) -> None:
        """Positions [worlds, atoms, 3] of atoms that are not hydrogen, from the centre of mass."""
        centre = (self._mass[:, None] * position).sum(1) / self._mass.sum()
        relative = position[:, self._placed] - centre[:, None]
        self._rows["place"].append(relative.astype(np.float32))

    def state(self) -> dict[str, np.ndarray]:
        """All that going on within the block needs."""
        counted = {"counts": self._counter.counts.copy(), "least": self._counter.least.copy()}
        return {name: self._array(name) for name in self._shapes} | counted

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state."""
        for name in self._shapes:
            self._rows[name] = list(state[name])
        self._counter.counts[:] = state["counts"]
        self._counter.least[:] = state["least"]

    @property
    def samples(self) -> int:
        """Samples so far."""
        return len(self._rows["step"])

    def block(self, *, whole: bool) -> dict[str, np.ndarray]:
        """What the file of the block holds."""
        measured = self.state()
        velocity = measured.pop("velocity")
        empty: np.ndarray = np.zeros((0, 0, 0), np.float32)
        measured["spectrum"] = self._spectrum(velocity) if whole else empty
        return measured

    def _array(self, name: str) -> np.ndarray:
        rows = self._rows[name]
        if rows:
            return np.array(rows)
        return np.zeros((0, *self._shapes[name]), np.int64 if name == "step" else np.float64)

    def _spectrum(self, velocity: np.ndarray) -> np.ndarray:
        return spectrum(velocity, self._numbers[self._followed], sorted(set(self._numbers)))


def followed_atoms(numbers: np.ndarray) -> np.ndarray:
    """Indices of at most about 600 atoms, of every species as many as its share, the first ones."""
    numbers = np.asarray(numbers)
    if len(numbers) <= _FOLLOWED:
        return np.arange(len(numbers))
    chosen = []
    for number in np.unique(numbers):
        own = np.flatnonzero(numbers == number)
        chosen.append(own[: max(1, round(_FOLLOWED * len(own) / len(numbers)))])
    return np.sort(np.concatenate(chosen))


def spectrum(velocity: np.ndarray, numbers: np.ndarray, known: Any) -> np.ndarray:
    """Power [worlds, kinds, frequencies] of mass-weighted velocities [times, worlds, atoms, 3]."""
    window = np.hanning(len(velocity))[:, None, None, None]
    power = np.abs(np.fft.rfft(window * velocity, axis=0)) ** 2
    mass = np.array(ATOMIC_WEIGHTS)[numbers]
    power = (power * mass[:, None]).sum(-1)  # [frequencies, worlds, atoms]
    kinds = [numbers == number for number in known]
    return np.stack([power[..., kind].sum(-1).T for kind in kinds], 1).astype(np.float32)


def write_block(folder: Path, number: int, measured: dict[str, np.ndarray]) -> None:
    """Write block `number`, counted from 1, of the run in `folder`."""
    write_arrays(folder / BLOCKS / f"{number:06d}.npz", measured)


def read_blocks(folder: Path, *, block: int, sample: int) -> list[dict[str, np.ndarray]]:
    """What was measured, block after block.

    block, sample: steps of a block and between samples.
    Raises ValueError for a file that cannot be read, and where samples are missing: a gap in time
    would be taken for none.
    """
    blocks = []
    for at, path in enumerate(block_files(folder)):
        if int(path.stem) != at + 1:
            raise ValueError(f"{path.parent} has no {at + 1:06d}.npz: measurements are missing")
        measured = read_arrays(path)
        missing = [name for name in (*TRACES, "place", "spectrum") if name not in measured]
        if missing:
            raise ValueError(f"{path} holds no {missing[0]!r}: not a block of a simulation")
        blocks.append(measured)
    for at, measured in enumerate(blocks):
        steps, first = measured["step"], at * block
        last = first + block
        if at == len(blocks) - 1:
            last = int(steps[-1]) if len(steps) else first
        due = np.arange(first // sample * sample + sample, last + 1, sample)
        # The last step of a block, and of a run, is measured too.
        if not np.array_equal(np.union1d(due, last), steps):
            raise ValueError(
                f"{folder}: what was measured of steps {first} to {last} is incomplete "
                f"(a run that an earlier version went on with); begin another run"
            )
    return blocks


def block_files(folder: Path) -> list[Path]:
    """The files of the blocks, in order."""
    return sorted((Path(folder) / BLOCKS).glob("[0-9][0-9][0-9][0-9][0-9][0-9]*.npz"))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz of the run; ValueError if it cannot be read."""
    try:
        # A file of our own: np.load leaves one open that is torn.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz whole or not at all."""
    savez: Any = np.savez
    write_atomically(path, lambda part: savez(part, **arrays))
