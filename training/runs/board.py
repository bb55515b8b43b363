"""Scalars for TensorBoard, written by the thread that adds them: a full disk stops the caller."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Board:
    """A new file of events in `folder`.

    since: of the events that earlier files hold, those after this step are to be forgotten.
    Every method raises OSError, in one line that names the file, if it cannot be written.
    """

    def __init__(self, folder: Path, *, since: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._file = _new_file(folder)
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        if since:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=since + 1, session_log=start))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Note numbers by name."""
        values = [Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # what could not be written is tried again
                self._file.close()
            raise OSError(f"{self._path} could not be written: {error.strerror}") from error


def _new_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A file with a name as TensorBoard expects it."""
    start = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
    for number in itertools.count():
        path = folder / f"{start}.{number}"
        try:
            return path, path.open("xb")
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(f"{path} could not be written: {error.strerror}") from error
    raise AssertionError
