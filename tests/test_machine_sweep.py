"""Every command with wrong input: exit code 2, one line on standard error, nothing else."""

from __future__ import annotations

import resource
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from invariantzoo.__main__ import COMMANDS, main

HUGE = "9" * 25
CROWD = "particles-crowd-v0"
COMMON = ("--seed -1", f"--seed {HUGE}", "--seed 1.5", "--seed", "--no-such-option", "--json=3")
WRONG: dict[str, tuple[str, ...]] = {
    "list": ("extra", "--jsn", "--help=x", "--steps 3"),
    "train": (
        "",
        "nothing-v0",
        "..:x",
        ":",
        f"{CROWD} --algo dqn",
        f"{CROWD} --steps 0",
        f"{CROWD} --steps {HUGE}",
        f"{CROWD} --set lr=nan",
        f"{CROWD} --set n_worlds=0",
        f"{CROWD} --set radius",
        f"{CROWD} --set wheels=4",
        f"{CROWD} --optimizer sgd",
        f"{CROWD} --metric row",
        f"{CROWD} --resume",
        f"{CROWD} --out file.txt",
        f"{CROWD} --out file.txt/run",
        f"{CROWD} --out /proc/no/run",
        f"{CROWD} --set n_agents={HUGE}",
        f"{CROWD} --set normalize_advantage=3",
        f"{CROWD} --algo a2c --set normalize_advantage=true --set n_worlds=1 --set n_steps=1",
        "tasep-ring-v0 --algo sac",
        "tasep-ring-v0 --algo descent",
        "tasep-ring-v0 --set horizon=5",
    ),
    "benchmark": (
        "",
        "--out runs --suite huge",
        "--out runs --engine cloud",
        "--out runs --engine array",
        "--out runs --ids nothing-v0",
        "--out runs --algos dqn",
        "--out runs --optimizers sgd",
        "--out runs --seeds 0",
        "--out runs --jobs 0",
        "--out runs --against file.txt",
        "--out file.txt",
    ),
    "criticality": (
        "",
        "missing/run",
        "folder",
        "file.txt",
        "folder --samples 0",
        "folder --samples many",
        "folder --out nowhere/picture.png",
    ),
    "evaluate": (
        "",
        CROWD,
        "nothing-v0",
        "missing/run",
        "folder",
        "file.txt --policy straight",
        f"{CROWD} --policy strait",
        f"{CROWD} --policy folder",
        f"{CROWD} --policy missing/run",
        f"{CROWD} --policy straight --episodes 0",
        f"{CROWD} --policy straight --seeds many",
        f"{CROWD} --policy straight --episodes {10**12} --seeds {10**6}",
        f"{CROWD} --policy straight --set radius=-1",
        f"{CROWD} --deterministic --stochastic",
    ),
    "rollout": (
        "",
        "nothing-v0",
        f"{CROWD} --policy strait",
        f"{CROWD} --policy folder",
        f"{CROWD} --video a.avi",
        f"{CROWD} --video nowhere/a.mp4",
        f"{CROWD} --npz folder",
        f"{CROWD} --npz /proc/a.npz",
        f"{CROWD} --n-worlds 0",
        f"{CROWD} --n-steps -3",
        f"{CROWD} --n-worlds {10**12}",
        f"{CROWD} --n-worlds {HUGE}",
        f"{CROWD} --n-steps {10**13} --npz a.npz",
        f"{CROWD} --set max_cycles=5",
    ),
    "regimes": (
        "",
        "missing",
        "folder",
        "file.txt",
        "folder --window 3",
        "folder --window x",
        "folder --out a.pdf",
        "folder --out nowhere/a.png",
        f"folder --window {HUGE}",
    ),
    "geometry": (
        "",
        "missing.npz",
        "missing.npz --out new",
        "file.txt --out new",
        "folder --out new",
        f"{CROWD} --out new",
        "ising-equilibrium-v0 --out new",
        "ising-equilibrium-v0 --out new --points x",
        "ising-equilibrium-v0 --out file.txt",
        "nothing-v0 --out new",
        "missing.npz --out new --set a=1",
    ),
    "reference": (
        "",
        "--engine vasp --out run",
        "--engine tblite",
        "--engine tblite --out file.txt",
        "--engine tblite --method dft --out run",
        "--engine tblite --steps 0 --out run",
        "--engine tblite --temperature hot --out run",
        "--engine tblite --dt 0 --out run",
        f"--engine tblite --waters {10**12} --out run",
        "--engine tblite --out /proc/no/run",
    ),
    "fit": (
        "",
        "missing.xyz --out m.npz",
        "file.txt --out m.npz",
        "folder --out m.npz",
        "file.txt",
        "file.txt --out m.txt",
        "file.txt --out nowhere/m.npz",
        "file.txt --out /proc/m.npz",
        "file.txt --out m.npz --loss cubic",
        "file.txt --out m.npz --ridge -1",
        "file.txt --out m.npz --cutoff nan",
        "file.txt --out m.npz --epochs 0",
        "empty.npz --out m.npz",
    ),
    "forces": (
        "",
        "water-angular",
        "missing water16",
        "water-angular missing.xyz",
        "water-angular file.txt",
        "file.txt file.txt",
        "empty.npz file.txt",
        "water-anguler file.txt",
        "water-angular folder",
        "water-angular empty.npz",
    ),
    "simulate": (
        "",
        "water-pair",
        "water-pair --steps 3",
        "water-pare --steps 3 --out run",
        "file.txt --steps 3 --out run",
        "empty.npz --steps 3 --out run",
        "water-pair --steps 0 --out run",
        f"water-pair --steps {HUGE} --out run",
        "water-pair --steps 3 --out file.txt",
        "water-pair --steps 3 --out /proc/no/run",
        "water-pair --steps 3 --out run --dt 0",
        "water-pair --steps 3 --out run --dt nan",
        f"water-pair --steps 3 --out run --waters {16 * 10**9}",
        "water-pair --steps 3 --out run --waters 17",
        "water-pair --steps 3 --out run --thermostat cold",
        "water-pair --steps 3 --out run --after missing",
        "water-pair --steps 3 --out run --start missing.xyz",
    ),
    "observe": (
        "",
        "missing",
        "folder",
        "file.txt",
        "folder --drop -1",
        "folder --drop nan",
        "folder --drop x",
        "folder --data missing.xyz",
        "folder --viscosity 0",
    ),
    "export": (
        "",
        "folder",
        "missing --hub new",
        "folder --hub new",
        "file.txt --hub new",
        "folder --hub file.txt",
    ),
    "search": (
        "",
        "nothing-v0",
        f"{CROWD} --algo dqn",
        f"{CROWD} --trials 0",
        f"{CROWD} --trials many",
        f"{CROWD} --jobs 0",
        f"{CROWD} --steps -1",
        f"{CROWD} --episodes 0",
        f"{CROWD} --set wheels=4",
        f"{CROWD} --set radius=-1",
        f"{CROWD} --out file.txt",
        f"{CROWD} --out /proc/search",
    ),
    "bench": (
        "--only nothing-like-it",
        "--write nowhere/speed.md",
        "--write folder",
        "--only",
        "extra",
        "--write /proc/speed.md",
    ),
    "check": (
        "",
        "nothing-v0",
        "nowhere:factory",
        "os:nothing",
        "os:sep",
        f"{CROWD} --steps 0",
        f"{CROWD} --steps {HUGE}",
        f"{CROWD} --set wheels=4",
        f"{CROWD} --set radius=-1",
        "..:x",
        ":",
        "math:floor",
    ),
}
CASES = [f"{name} {words}" for name in COMMANDS for words in (*WRONG[name], *COMMON)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a few things that are no input, and a bound on memory."""
    (tmp_path / "file.txt").write_text("3\nnothing that is understood\n", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "empty.npz", nothing=np.zeros(0))
    monkeypatch.chdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 * 2**30, limits[1]))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_DATA, limits)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_module_that_fails_is_named(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = place / "modules"
    folder.mkdir()
    (folder / "quits.py").write_text("raise SystemExit(7)", encoding="utf-8")
    (folder / "breaks.py").write_text("1 / 0", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name in ("quits", "breaks"):
            assert main(["rollout", f"{name}:x-y-v0"]) == 2
            out, err = capfd.readouterr()
            assert out == ""
            assert err.startswith(f"invariantzoo: error: '{name}:x-y-v0' cannot be loaded: ")
            assert err.count("\n") == 1
    shutil.rmtree(folder)


@pytest.mark.parametrize("line", CASES)
def test_wrong_input_is_one_line(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--json",)):
        assert main([*shlex.split(line), *more]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("invariantzoo: error: ")
        assert err.count("\n") == 1
        assert len(err) < 1000
