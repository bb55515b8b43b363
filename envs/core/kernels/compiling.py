"""Compilation by numba, with machine code kept between processes wherever that is possible.

Code is kept in the folder that the environment variable NUMBA_CACHE_DIR names, else beside the
sources, else in the user's cache folder, else in a folder of the user's own among the temporary
files. Where none of them can be written all works, but every process compiles anew.
"""

from __future__ import annotations

import os
import pickle
import stat
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserWideCacheLocator,
)

from .announcement import Announcement, current

_COMPILATION = "numba:compile"  # numba's event for a function that is not in the cache
_lost: list[str] = []


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator as `numba.njit(**options, cache=True)`, which never fails for want of a cache."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        if dispatcher is not function:  # as it is where NUMBA_DISABLE_JIT is set
            try:
                dispatcher._cache = _Cache(function)  # what `cache=True` does
            except RuntimeError as error:
                if "no locator available" not in str(error):
                    raise
                _lost.append("no folder for it can be written")
        return dispatcher

    return decorate


def compiled_part(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator as `compiled` for functions that compiled code alone calls.

    They may not make arrays, nor views of them; that saves a quarter of their compile time. A call
    from Python raises TypeError: numba itself would jump to code that is not there.
    """
    compile_part = compiled(**options, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = compile_part(function)
        if dispatcher is not function:
            dispatcher._insert = _leave_out
            dispatcher._compile_for_args = partial(_refuse, function.__qualname__)
        return dispatcher

    return decorate


def _leave_out(*_: Any, **__: Any) -> None:
    """Keeps compiled forms from calls by Python."""


def _refuse(name: str, *_: Any, **__: Any) -> None:
    raise TypeError(f"{name} works in compiled code only")


def not_kept() -> str:
    """Why machine code of this process could not be kept; empty if all was."""
    return _lost[0] if _lost else ""


class _Listener(event.Listener):
    """Tells whoever announces it what is compiled."""

    def __init__(self) -> None:
        self._told: list[Announcement | None] = []

    def on_start(self, _: Any) -> None:
        announcement = current()
        self._told.append(announcement)
        if announcement is not None:
            announcement.begin()

    def on_end(self, _: Any) -> None:
        announcement = self._told.pop() if self._told else None
        if announcement is not None:
            announcement.end()


event.register(_COMPILATION, _Listener())


class _TemporaryLocator(InTreeCacheLocator):
    """A place among the temporary files."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(_temporary_folder() / self.get_suitable_cache_subpath(py_file))

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        try:
            return super().from_function(py_func, py_file)
        except OSError:
            return None


def _temporary_folder() -> Path:
    """A folder that nobody else can write, for what is in it will be run; OSError if none is."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"invariantzoo-numba-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others")
    return folder


# numba's own places, then the temporary one. Without a home numba would make a folder of the name
# "~" in the working directory.
_PLACES = [
    place
    for place in CompileResultCacheImpl._locator_classes
    if place is not UserWideCacheLocator or os.path.expanduser("~") != "~"
]
_PLACES.append(_TemporaryLocator)


class _Places(CompileResultCacheImpl):
    """Where code is looked for and kept."""

    _locator_classes = _PLACES


class _Cache(FunctionCache):
    """numba's cache, for which a file that cannot be read or written is no error."""

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except (OSError, EOFError, pickle.UnpicklingError):  # torn, or not for us to read
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            _lost.append(f"{self.cache_path}: {error}")
