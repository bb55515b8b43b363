"""Extended XYZ of a simulation that goes on where it was left, and only there.

A run keeps how many bytes of its trajectory are sure, and their checksum. Frames behind these were
written by a process that died before its next checkpoint; they are made again.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ...envs.core.physics.units import SYMBOLS

_CHUNK = 1 << 20  # bytes read at once
_PROPERTIES = "Properties=species:S:1:pos:R:3:forces:R:3"


class Mark(NamedTuple):
    """What of a trajectory is sure: bytes and their CRC-32, -1 where that was not kept."""

    size: int = 0
    checksum: int = 0


class Layout:
    """How a frame of atoms [n] in a cell [3, 3] is written."""

    def __init__(self, numbers: np.ndarray, cell: np.ndarray) -> None:
        self._symbols = [SYMBOLS[int(number)] for number in numbers]
        lattice = " ".join(f"{v:.8f}" for v in np.asarray(cell).ravel())
        box = f'Lattice="{lattice}" pbc="T T T" ' if np.any(cell) else 'pbc="F F F" '
        self._head = f"{len(numbers)}\n{box}{_PROPERTIES} energy="
        row = r"[A-Z][a-z]?(?: \S+){6}\n"
        comment = rf"{re.escape(self._head)}\S+ time=(\S+)\n"
        self._comment = re.compile(comment.encode())
        self._whole = re.compile(rf"{comment}(?:{row}){{{len(numbers)}}}".encode())

    def frame(self, position: np.ndarray, force: np.ndarray, energy: float, fs: float) -> bytes:
        """Positions and forces [n, 3], energy in eV, at a time."""
        rows = (
            f"{name} {x[0]:.6f} {x[1]:.6f} {x[2]:.6f} {f[0]:.6f} {f[1]:.6f} {f[2]:.6f}\n"
            for name, x, f in zip(self._symbols, position, force, strict=True)
        )
        return f"{self._head}{energy:.6f} time={fs:.3f}\n{''.join(rows)}".encode()

    def is_written_after(self, data: bytes, fs: float) -> bool:
        """Whether the bytes are such frames of later times, the last one perhaps torn."""
        at = 0
        while match := self._whole.match(data, at):
            if not float(match[1]) > fs:
                return False
            at = match.end()
        head, torn = self._head.encode(), data[at:]
        comment = self._comment.match(torn)
        later = comment is None or float(comment[1]) > fs
        return head.startswith(torn[: len(head)]) and later and self._whole.search(torn) is None


class Trajectory:
    """Extended XYZ that begins, or goes on after what is sure.

    fs: time up to which the run is sure. `begun`: whether a file was expected and is not there, so
    that a new one begins.
    Raises ValueError, and changes nothing, for a file that is not as the run left it.
    """

    def __init__(self, path: Path, layout: Layout, mark: Mark, fs: float) -> None:
        self.path, self._layout = path, layout
        self.begun = mark.size > 0 and not path.exists()
        self._size, self._checksum = (0, 0) if self.begun else mark
        self._file: BinaryIO | None = None
        if path.exists():
            self._checksum = _require_unchanged(path, layout, mark, fs)

    def open(self) -> None:
        """Cut off what is not sure and get ready to write."""
        try:
            self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error

    def add(self, position: np.ndarray, force: np.ndarray, energy: float, fs: float) -> None:
        """Write a frame; OSError that names the file if it cannot be."""
        assert self._file is not None
        data = self._layout.frame(position, force, energy, fs)
        try:
            rest = memoryview(data)
            while len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(f"{self.path} could not be written: {error.strerror}") from error
        self._size += len(data)
        self._checksum = zlib.crc32(data, self._checksum)

    def mark(self) -> Mark:
        """What is on the disk now."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        return Mark(self._size, self._checksum)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _require_unchanged(path: Path, layout: Layout, mark: Mark, fs: float) -> int:
    """The checksum of what is sure; ValueError if the file is not as the run left it."""
    size = path.stat().st_size
    advice = "put the file back as it was, or move it away and a new one begins"
    if size < mark.size:
        raise ValueError(
            f"{path} has {size:,} bytes of the {mark.size:,} that the run had written: {advice}"
        )
    checksum = 0
    with path.open("rb") as file:
        left = mark.size
        while left and (data := file.read(min(left, _CHUNK))):
            checksum, left = zlib.crc32(data, checksum), left - len(data)
        tail = file.read()
    if mark.checksum not in (-1, checksum):
        raise ValueError(f"{path} was changed since the run wrote it: {advice}")
    if not layout.is_written_after(tail, fs):
        raise ValueError(f"{path} holds more than the run wrote: {advice}")
    return checksum
