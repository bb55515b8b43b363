"""The record of a search: Optuna's journal, which a full disk and a lost process do not spoil."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class Journal(JournalFileBackend):
    """A file of lines that processes append to, on this machine or others that see it.

    Optuna appends after a line that a full disk cut short, and cannot read the file any more; here
    such an end is cut off before the next line.  Raises ValueError for a file of something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _require_journal(path)
        super().__init__(str(path), _Lock(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines; OSError, in one line that names the file, if they cannot be written."""
        try:
            super().append_logs(logs)
        except OSError as error:
            raise OSError(f"{self._path} could not be written: {error.strerror}") from error


class _Lock(JournalFileSymlinkLock):
    """Whoever holds it finds whole lines alone."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        held = super().acquire()
        try:
            _cut_torn_line(self._path)
        except BaseException:
            self.release()
            raise
        return held


def _cut_torn_line(path: Path) -> None:
    """Leave out what follows the last end of a line."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def _require_journal(path: Path) -> None:
    """Raise ValueError where the first whole line of a file is no entry of a journal."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n") and (not line or line.startswith(b"{")):
        return  # of a first line that was cut short
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or "op_code" not in entry:
        raise ValueError(f"{path} is of something else than a search; choose another --out")
