"""Memory: requests that cannot be met are refused before anything is allocated."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

_SMALL = 2**26  # bytes that are not worth a look at what is free
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # version 1 of control groups writes "no limit" as a number above this


def require_memory(what: str, needed: float) -> None:
    """Raise ValueError if this process cannot get `needed` more bytes.

    what: the request, with the argument's name and value; it begins the message.
    `needed` is a lower bound of what will be used, so that nothing is refused that would fit.
    """
    if needed <= _SMALL:
        return
    free = free_memory()
    if needed > free:
        raise ValueError(
            f"{what} needs at least {readable(needed)} of memory; {readable(free)} is free"
        )


def free_memory() -> int:
    """Bytes that this process can still get.

    The least of the machine's free memory (swap does not count) and what is left of the limits of
    the process (ulimit -v, ulimit -d) and of its control groups (containers, batch systems).
    """
    import psutil

    limits = [psutil.virtual_memory().available, *_left_of_limits(), *_left_of_groups()]
    return max(0, min(limits))


@contextlib.contextmanager
def within_what_is_free() -> Iterator[None]:
    """Let a request beyond what is free fail while the block runs: else the kernel ends a process.

    What fails is a MemoryError, or torch's RuntimeError. Only Linux knows such a limit.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    import psutil

    used = psutil.Process().memory_info().data
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + free_memory() + psutil.swap_memory().free
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def readable(size: float) -> str:
    """Bytes for people: "3.4 GiB"."""
    unit = 0
    while size >= 1000 and unit < 6:
        size /= 1024
        unit += 1
    name = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")[unit]
    return f"{size:.3g} {name}" if size < 1000 else f"{size:,.0f} {name}"


def _left_of_limits() -> Iterator[int]:
    """What the limits of the process leave."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    try:
        words = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return
    page = resource.getpagesize()
    used = {resource.RLIMIT_AS: int(words[0]) * page, resource.RLIMIT_DATA: int(words[5]) * page}
    for limit, size in used.items():
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - size


def _left_of_groups(root: Path = _CGROUPS, groups: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What the limits of the control groups of this process leave, versions 1 and 2.

    Pages of files that can be dropped do not count as used. Within a container the path that the
    kernel names may not be visible; the group mounted at `root` is then the container's own.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = root / "unified" if (root / "unified").is_dir() else root
            names = ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            top = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        parts = [folder for folder in path.split("/") if folder not in ("", "..")]
        for depth in range(len(parts) + 1):
            left += _left_of_group(top.joinpath(*parts[:depth]), *names)
    return left


def _left_of_group(folder: Path, limit: str, usage: str, prefix: str) -> list[int]:
    """[bytes that the group may still use], or [] if it has no limit.

    prefix: of the counts in memory.stat that include groups within this one.
    """
    try:
        most = int((folder / limit).read_text(encoding="ascii"))  # version 2 writes "max"
        used = int((folder / usage).read_text(encoding="ascii"))
        stat = (folder / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):
        return []
    counts = dict(line.split(" ", 1) for line in stat.splitlines() if " " in line)
    files = sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return [] if most >= _UNLIMITED else [most - used + files]
