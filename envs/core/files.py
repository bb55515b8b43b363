"""Files that appear whole or not at all, arrays of others, and folders that one process holds."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # not a Unix: nothing is guarded there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
MOST_BYTES = 8 * 2**30  # that the arrays of a file may take in memory
IN_USE = 75  # exit code for a folder in use, of sysexits.h: the same command may work later


class InUseError(ValueError):
    """Another process holds a folder: it may be free later."""


def process_name() -> str:
    """What no other process is called now, on whatever machine: several may share a folder."""
    return f"{socket.gethostname()}-{os.getpid()}"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place.

    Raises OSError, in one line that names `path` and the reason; an earlier file is then as it was,
    and no temporary one is left.
    """
    temporary = path.with_name(f".{path.stem}.{process_name()}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # Where a write fails, torch ends its archive all the same and fails again in its own words.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(f"{path} could not be written: {cause.strerror or cause}") from error
    finally:
        with contextlib.suppress(OSError):  # a file system that lost its right to be written
            temporary.unlink(missing_ok=True)


def save_tensors(path: Path, state: Any) -> None:
    """Write what `torch.load` reads, as `write_atomically` does, and see it on the disk.

    Through a file of Python's: where torch opens the file a full disk is no OSError. On the disk
    before it takes the place of the former one: a machine that fails then has one of the two whole.
    """
    import torch

    def write(part: Path) -> None:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    write_atomically(path, write)


def write_folder(path: Path, write: Callable[[Path], object], *, size: int = 0) -> None:
    """Let `write` fill a temporary folder beside `path`, then put it in its place.

    path: absent or an empty folder.  size: bytes that are sure to be needed; where they are not
    free nothing is begun, for writers that do not survive a full disk.
    Raises OSError, in one line that names `path` and the reason; nothing is left then.
    """
    # In full: libraries take paths in their own ways, Minari a relative one twice over.
    temporary = path.absolute().with_name(f".{path.name}.{process_name()}.tmp")
    with _removed_after(temporary, path):
        temporary.mkdir()
        _require_space(temporary, size)
        write(temporary)
        os.replace(temporary, path)


def write_together(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder, then put its files into `folder`: all of them or none.

    Raises OSError, in one line that names `folder` and the reason; earlier files are then as they
    were.
    """
    temporary = folder / f".{process_name()}.tmp"
    with _removed_after(temporary, folder):
        temporary.mkdir(parents=True)
        write(temporary)
        for path in sorted(temporary.iterdir()):
            os.replace(path, folder / path.name)


@contextlib.contextmanager
def _removed_after(temporary: Path, path: Path) -> Iterator[None]:
    """Leave nothing of a temporary folder, and say in one line that `path` was not written."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} could not be written: {_reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reason(error: OSError) -> str:
    """Why something could not be written, where `write_atomically` may have said so of a part."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return cause.strerror or str(cause)


def _require_space(folder: Path, size: int) -> None:
    """Raise OSError unless a file of `size` bytes fits there now."""
    if size and hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold `folder`, made if need be, for this process alone until the block ends.

    Yields whether it is held: False where the file system or the machine knows no locks (flock).
    The operating system frees it when the process dies, however it dies. What was made here and is
    empty at the end is removed.
    Raises InUseError if another process holds it, and OSError if it cannot be made.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} could not be made: {error.strerror}") from error
    try:
        with _locked(folder / LOCK) as held:
            yield held
    finally:
        for made_folder in made:
            with contextlib.suppress(OSError):  # not empty
                made_folder.rmdir()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock file, which is removed at the end."""
    if fcntl is None:
        yield False
        return
    file = _open_lock(path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                f"{path.parent} is in use by {holder(path.parent)}; wait, or choose another"
            ) from None
        except OSError:  # no locks here
            path.unlink(missing_ok=True)
            yield False
            return
        os.truncate(file, 0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the name
            os.write(file, f"{os.getpid()} {socket.gethostname()}".encode())
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _open_lock(path: Path) -> int:
    """A descriptor of the lock file; OSError, in one line, if there can be none."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OSError(f"{path.parent} cannot be written: {error.strerror}") from error


def holder(folder: Path) -> str:
    """Who holds a folder, as its lock file says."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        number, _, host = (folder / LOCK).read_text(encoding="utf-8").partition(" ")
        if number.isdecimal():
            return f"process {number}" + (f" on {host}" if host != socket.gethostname() else "")
    return "another process"


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name. Nothing in it is executed.

    Raises ValueError for what cannot be read, is no such file, is damaged, holds pickled objects or
    one name twice, or would take more than `MOST_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            size = sum(entry.file_size for entry in archive.infolist())
            damaged = None if size > MOST_BYTES else archive.testzip()
        if size > MOST_BYTES:
            raise ValueError(f"its arrays take {size:,} bytes, more than {MOST_BYTES:,}")
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        if len(set(names)) < len(names):
            raise ValueError("it holds one name twice")
        with np.load(path, allow_pickle=False) as file:
            return {name: _array(file[name], name) for name in file.files}
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is no .npz of plain arrays: {what}") from None


def _array(value: object, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is no array")
    return value
