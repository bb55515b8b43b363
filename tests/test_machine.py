"""The machine: what it cannot give is said in one line, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import full_disk

from invariantzoo.envs.core import memory
from invariantzoo.envs.core.files import (
    LOCK,
    InUseError,
    claim,
    write_atomically,
    write_folder,
    write_together,
)

HOLD = (
    "import sys, time; from pathlib import Path; from invariantzoo.envs.core.files import claim\n"
    "with claim(Path(sys.argv[1])) as held:\n"
    "    print(held, flush=True); time.sleep(60)"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_a_folder_is_held_by_one_process_until_it_dies(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    process = holder(folder)
    try:
        with pytest.raises(InUseError, match=f"{folder} is in use by process {process.pid};"):
            claim(folder).__enter__()
        assert folder.is_dir()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with claim(folder) as held:
        assert held
        assert (folder / LOCK).read_text().startswith(f"{os.getpid()} ")
    assert not (folder / LOCK).exists()


def test_a_claim_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError), claim(tmp_path / "a" / "b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with claim(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]
    (tmp_path / "empty").mkdir()
    with claim(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()


def test_without_locks_a_claim_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariantzoo.envs.core.files.fcntl", None)
    with claim(tmp_path / "a") as held, claim(tmp_path / "a"):
        assert not held
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"{tmp_path}/file/run could not be made: Not a directory"):
        claim(tmp_path / "file" / "run").__enter__()


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")

    def full(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match=r"file\.txt could not be written: No space left on device"):
        write_atomically(path, full)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill(part: Path) -> None:
        (part / "a").write_text("whole")
        write_atomically(part / "b", lambda path: path.write_text("x" * 200))

    for kind in ("absent", "empty"):
        folder = tmp_path / kind
        if kind == "empty":
            folder.mkdir()
        with full_disk(100):
            for size in (0, 1000):
                with pytest.raises(OSError, match=rf"{kind} could not be written: File too large$"):
                    write_folder(folder, fill, size=size)
        assert [path for path in tmp_path.rglob("*") if path != folder] == []
        write_folder(folder, fill, size=1000)
        assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
        shutil.rmtree(folder)


def test_files_that_belong_together_are_replaced_together(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"

    def fill(part: Path) -> None:
        (part / "a").write_text("after")
        (part / "b").write_text("x" * 200)

    write_together(folder, lambda part: (part / "a").write_text("before"))
    (folder / "mine").touch()
    with full_disk(100), pytest.raises(OSError, match=r"folder could not be written: File too"):
        write_together(folder, fill)
    assert (folder / "a").read_text() == "before"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "mine"]
    write_together(folder, fill)
    assert (folder / "a").read_text() == "after"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "mine"]


def test_memory_that_is_not_free_is_refused_with_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * 2**30)
    memory.require_memory("n_agents=1000", 3 * 2**30)
    with pytest.raises(
        ValueError, match=r"^n_agents=1000 needs at least 4 GiB of memory; 3 GiB is"
    ):
        memory.require_memory("n_agents=1000", 4 * 2**30)


def test_free_memory_is_what_the_machine_says() -> None:
    free = memory.free_memory()
    with open("/proc/meminfo", encoding="ascii") as file:
        counts = dict(line.split(":") for line in file)
    total = int(counts["MemTotal"].split()[0]) * 1024
    assert 2**24 < free < total


def test_free_memory_obeys_the_limits_of_the_process() -> None:
    code = "from invariantzoo.envs.core.memory import free_memory; print(free_memory())"
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda limit=limit: resource.setrlimit(limit, (2**30, 2**30)),
        )
        assert 2**29 < int(done.stdout) < 2**30


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_obeys_control_groups(tmp_path: Path, version: int) -> None:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        2: ("memory.max", "memory.current", ""),
    }
    root = tmp_path / "memory" if version == 1 else tmp_path
    limits = {"": 2**62 if version == 1 else "max", "job": 1000, "job/step": 5000}
    for group, most in limits.items():
        folder = root / group
        folder.mkdir(exist_ok=True)
        limit, usage, prefix = names[version]
        (folder / limit).write_text(f"{most}\n")
        (folder / usage).write_text("700\n")
        (folder / "memory.stat").write_text(
            f"anon 1\n{prefix}active_file 20\n{prefix}inactive_file 100\n"
        )
    groups = tmp_path / "groups"
    groups.write_text("3:cpu:/x\n" + ("4:memory:/job/step\n" if version == 1 else "0::/job/step\n"))
    assert memory._left_of_groups(tmp_path, groups) == [1000 - 700 + 120, 5000 - 700 + 120]
    assert memory._left_of_groups(tmp_path, tmp_path / "missing") == []
    # in a container the path of the host is not there: what is mounted is the group itself
    groups.write_text("4:memory:/docker/1\n" if version == 1 else "0::/docker/1\n")
    (root / names[version][0]).write_text("900\n")
    assert memory._left_of_groups(tmp_path, groups) == [900 - 700 + 120]


@pytest.mark.parametrize(
    ("size", "text"),
    [(12, "12 bytes"), (1000, "0.977 KiB"), (3.2 * 2**30, "3.2 GiB"), (2**73, "8,192 EiB")],
)
def test_sizes_are_readable(size: float, text: str) -> None:
    assert memory.readable(size) == text
