"""The command line on a machine that lacks something, and given what it cannot do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused

import invariantzoo
from invariantzoo.__main__ import main
from invariantzoo.envs.core.files import IN_USE, claim
from invariantzoo.envs.core.seeds import HELD_OUT

CROWD = "particles-crowd-v0"
ENCOUNTER = "particles-encounter-v0"
HUGE = "99999999999999999999999"
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}  # Python cuts it where files are limited
ALONE = ["--no-baselines", "--no-film"]
TRAIN = ["--steps", "8", "--set", "n_worlds=2", "--set", "n_steps=2", "--set", "batch_size=4"]
TRAIN += ALONE


def shell(
    *words: str,
    cwd: Path | None = None,
    largest_file: int = resource.RLIM_INFINITY,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, whose files can have so many bytes."""
    bytecode = {} if largest_file == resource.RLIM_INFINITY else NO_BYTECODE
    return subprocess.run(
        [sys.executable, "-m", "invariantzoo", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
        env={**os.environ, **bytecode, **environment},
        timeout=300,
    )


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    """A request that should have been refused fails, and does not fill the machine."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, limits)


# No place for compiled code


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose caches cannot be written, whoever the user is."""
    folder = tmp_path_factory.mktemp("site")
    root = Path(__file__).resolve().parent.parent
    package = folder / "invariantzoo"
    nothing = shutil.ignore_patterns("__pycache__", "figures")
    shutil.copytree(root / "scripts", package, ignore=nothing)
    for name in ("envs", "agents", "training"):
        shutil.copytree(root / name, package / name, ignore=nothing)
    for place in [package, *package.rglob("*")]:
        if place.is_dir():
            (place / "__pycache__").write_text("no folder", encoding="utf-8")
    return folder


def without_home(installed: Path, temporary: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A rollout without a home, whose temporary files are in `temporary`.

    Its system has no compiled twin: what is compiled is what every system needs.
    """
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv.pop(1)\n"
        "from invariantzoo import register\n"
        "register('test-hold-v0', 'systems:Hold', summary='holds')\n"
        "from invariantzoo.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["rollout", "test-hold-v0", "--n-steps", "2", "--json"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"},
        "HOME": "/proc/nohome",
        "XDG_CACHE_HOME": "/proc/nocache",
        "PYTHONPATH": os.pathsep.join([str(installed), str(Path(__file__).parent)]),
        **NO_BYTECODE,
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", code, temporary, *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=installed,
        timeout=300,
    )


def codes(folder: Path) -> set[str]:
    """Names of the functions whose code is kept in a folder."""
    return {path.name.split("-")[0] for path in folder.rglob("*.nbi")}


def test_code_is_kept_among_the_temporary_files(installed: Path, tmp_path: Path) -> None:
    done = without_home(installed, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "NUMBA_CACHE_DIR" not in done.stderr
    assert json.loads(done.stdout)["n_steps"] == 2
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "philox.fill_normal" in codes(folder)
    # a folder that others can write is not used: what is in it would be run
    folder.chmod(0o777)
    again = without_home(installed, str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("NUMBA_CACHE_DIR") == 1


def test_code_that_cannot_be_kept_is_one_line(installed: Path, tmp_path: Path) -> None:
    done = without_home(installed, "/proc/no/folder")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_steps"] == 2
    said = [line for line in done.stderr.splitlines() if "NUMBA_CACHE_DIR" in line]
    assert len(said) == 1
    kept = without_home(installed, "/proc/no/folder", NUMBA_CACHE_DIR=str(tmp_path))
    assert kept.returncode == 0, kept.stderr
    assert "NUMBA_CACHE_DIR" not in kept.stderr
    assert "philox.fill_normal" in codes(tmp_path)


def test_a_full_disk_does_not_stop_compiled_code(installed: Path, tmp_path: Path) -> None:
    code = (
        "import resource; from invariantzoo.envs.core.kernels import compiling\n"
        "from invariantzoo.envs.core.kernels import splitmix\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "print(splitmix.threshold(0.5), compiling.not_kept())"
    )
    place = {"PYTHONPATH": str(installed), "NUMBA_CACHE_DIR": str(tmp_path)}
    environment = {**os.environ, **NO_BYTECODE, **place}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2147483648 ")
    assert "File too large" in done.stdout


# Encodings


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_tables_in_ascii(environment: dict[str, str]) -> None:
    done = shell(
        "evaluate",
        CROWD,
        "--policy",
        "straight",
        "--episodes",
        "1",
        "--seeds",
        "1",
        "--set",
        "n_agents=3",
        "--set",
        "n_neighbours=2",
        "--set",
        "horizon=3",
        "--set",
        "density=0.1",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "progress" in done.stdout


def test_letters_that_an_encoding_lacks_are_spelt_out() -> None:
    code = (
        "from invariantzoo.streams import take_every_letter as take; take()\n"
        "print('± Å cm⁻¹ 10⁻³ Å²/ps – … \\udcff ü')"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "+- A cm^-1 10^-3 A^2/ps - ... ? ?\n"


# Full disk: a limit on the size of files is a disk that any user can fill


def test_a_full_disk_stops_training_in_one_line_and_it_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    line = ["train", ENCOUNTER, "--out", str(folder), *TRAIN]
    done = shell(*line, largest_file=3000)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert last.startswith("invariantzoo: error: ")
    assert "could not be written: File too large" in last
    assert done.stdout == ""
    assert not (folder / "checkpoint.pt").exists()
    assert not list(folder.glob(".*"))
    assert main(["train", ENCOUNTER, "--out", str(folder), "--resume", "--json", *ALONE]) == 0
    said, error = capsys.readouterr()
    assert "no checkpoint yet" in error
    json.loads(said, parse_constant=pytest.fail)
    kept = (folder / "checkpoint.pt").read_bytes()
    line = ["train", ENCOUNTER, "--out", str(folder), "--resume", "--steps", "64", *ALONE]
    full = shell(*line, largest_file=3000)
    assert full.returncode == 2
    assert "could not be written: File too large" in full.stderr
    assert "Traceback" not in full.stderr
    assert (folder / "checkpoint.pt").read_bytes() == kept
    assert not list(folder.glob(".*"))
    assert main(line) == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.npz"])
def test_a_full_disk_stops_a_rollout_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    option = "--npz" if name.endswith("npz") else "--video"
    done = shell("rollout", CROWD, option, str(path), "--n-steps", "20", largest_file=1500)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("invariantzoo: error: ") == 1
    assert f"{path} could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Eight frames of two molecules in open space, with forces."""
    rng = np.random.default_rng(0)
    molecule = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    position = np.concatenate([molecule, molecule + np.array([3.0, 0.0, 0.0])])
    data = tmp_path / "data" / "few.npz"
    data.parent.mkdir()
    np.savez(
        data,
        positions=position + rng.normal(0, 0.03, (8, 6, 3)),
        forces=rng.normal(0, 1, (8, 6, 3)),
        cell=np.zeros((3, 3)),
        numbers=[8, 1, 1, 8, 1, 1],
        split=["train"] * 6 + ["val"] * 2,
    )
    return data


@pytest.mark.parametrize("loss", ["pair", "net"])
def test_a_full_disk_stops_a_fit_in_one_line(loss: str, frames: Path, tmp_path: Path) -> None:
    """What stood in the place of the model stays there."""
    model = tmp_path / "model.npz"
    model.write_bytes(b"mine")
    brief = ["--epochs", "1", "--channels", "2"] if loss == "net" else []
    fit = ["fit", str(frames), "--loss", loss, "--out", str(model), *brief]
    done = shell(*fit, largest_file=600)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("invariantzoo: error: ") == 1
    assert "could not be written: File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert model.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model.npz"]


def test_a_full_disk_stops_a_reference_run_in_one_line_and_it_can_go_on(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    folder = tmp_path / "run"
    line = ["reference", "--engine", "tblite", "--waters", "1", "--steps", "4", "--every", "2"]
    line += ["--out", str(folder), "--json"]
    full = shell(*line, largest_file=600)
    assert full.returncode == 2, full.stderr
    assert full.stderr.count("invariantzoo: error: ") == 1
    assert "could not be written: File too large" in full.stderr.splitlines()[-1]
    assert full.stdout == ""
    assert not list(folder.glob(".*"))
    assert shell(*line).returncode == 0
    with np.load(folder / "frames.npz") as written:
        assert len(written["positions"]) > 1


def test_a_full_standard_output_loses_no_model(frames: Path, tmp_path: Path) -> None:
    """JSON that cannot be written is one line and exit code 2; files that were written stay."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    model = tmp_path / "model.npz"
    fit = ["fit", str(frames), "--loss", "pair", "--out", str(model), "--json"]
    judge = ["forces", str(model), str(frames), "--json"]
    score = ["evaluate", ENCOUNTER, "--policy", "straight", "--episodes", "2", "--seeds", "1"]
    for line in (fit, judge, [*score, "--json"]):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run(
                [sys.executable, "-m", "invariantzoo", *line],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("invariantzoo: error: ") == 1
        assert done.stderr.endswith("No space left on device\n")
        assert "Traceback" not in done.stderr
        assert model.exists()


def test_a_full_standard_output(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "invariantzoo", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("invariantzoo: error: ")
    assert done.stderr.endswith("No space left on device\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("numbers", "words"), [((1,), ["list", "--json"]), ((0, 1, 2), ["list"])])
def test_closed_streams(numbers: tuple[int, ...], words: list[str]) -> None:
    """What is said goes nowhere, not into files that are opened."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    command = [sys.executable, "-m", "invariantzoo", *words]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=close)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Two trainings


def test_a_folder_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(["train", ENCOUNTER, "--out", str(folder), *TRAIN]) == 0
    assert (folder / "mine.txt").read_text(encoding="utf-8") == "mine"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code = (
        "import sys; from pathlib import Path\n"
        "from invariantzoo.envs.core.files import claim\n"
        "with claim(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for more in ([], ["--resume"]):
            words = ["train", ENCOUNTER, "--out", str(folder), *more]
            said = refused(capsys, *words, code=IN_USE)
            assert f"in use by process {other.pid}" in said
        words = ["evaluate", str(folder), "--episodes", "1", "--seeds", "1"]
        assert main(words) == 0
        other.communicate(b"")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    with claim(folder):
        pass


def test_what_is_known_at_once_is_refused_before_heavy_imports(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    code = (
        "import sys; from invariantzoo.__main__ import main; main(sys.argv[1:])\n"
        "print(*{'torch', 'numba', 'stable_baselines3'} & set(sys.modules))"
    )
    for words in (
        ["train", CROWD, "--out", str(tmp_path)],
        ["train", CROWD, "--out", str(tmp_path), "--resume"],
        ["train", "particles-crwd-v0"],
        ["train", CROWD, "--algo", "dqn"],
        ["trian", CROWD],
        ["evaluate", str(tmp_path)],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        assert done.stderr.startswith("invariantzoo: error: "), words
        assert done.stdout == "\n", words


# Seeds and memory


@pytest.mark.parametrize(
    "words",
    [
        ["train", CROWD],
        ["evaluate", CROWD, "--policy", "straight"],
        ["rollout", CROWD],
        ["regimes", "run"],
        ["reference", "--engine", "tblite", "--out", "x"],
        ["simulate", "water-pair", "--steps", "1", "--out", "x"],
        ["check", CROWD],
        ["list"],
    ],
)
def test_seeds_have_one_range(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (HUGE, str(HELD_OUT), "-1", "1.5"):
        said = refused(capsys, *words, "--seed", seed)
        assert "--seed" in said
        assert "whole number" in said
    assert f"from 0 to {HELD_OUT - 1}" in refused(capsys, *words, "--seed", HUGE)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "1"])
def test_seeds_from_python(seed: Any) -> None:
    for make in (invariantzoo.parallel_env, invariantzoo.env):
        with pytest.raises(ValueError, match=r"^seed="):
            make(ENCOUNTER).reset(seed=seed)
    with pytest.raises(ValueError, match=r"^seed="):
        invariantzoo.vec_env(ENCOUNTER, seed=seed)
    with pytest.raises(ValueError, match=r"^seed="):
        invariantzoo.vec_env(ENCOUNTER).seed(seed)


def test_the_largest_seed_and_numpy_seeds_are_taken() -> None:
    one, _ = invariantzoo.parallel_env(CROWD).reset(seed=2**64 - 1)
    other, _ = invariantzoo.parallel_env(CROWD).reset(seed=np.uint64(2**64 - 1))
    zero, _ = invariantzoo.parallel_env(CROWD).reset(seed=0)
    assert all((one[agent] == other[agent]).all() for agent in one)
    assert not all((one[agent] == zero[agent]).all() for agent in one)


@pytest.mark.parametrize(
    "words",
    [
        ["train", CROWD, "--set", "n_agents=10000000000"],
        ["train", CROWD, "--set", "n_worlds=1000000000"],
        ["train", CROWD, "--set", "n_steps=1000000000000"],
        ["train", CROWD, "--algo", "sac", "--set", "buffer_size=1000000000000"],
        ["train", CROWD, "--algo", "descent", "--set", "rollout=1000000000000"],
        ["train", "ising-equilibrium-v0", "--set", "lattice_size=1000000"],
        ["rollout", ENCOUNTER, "--policy", "brake", "--n-worlds", "100000000000", "--n-steps", "1"],
        ["rollout", CROWD, "--n-steps", "1000000000000", "--npz", "a.npz"],
        ["evaluate", CROWD, "--policy", "brake", "--episodes", "1000000000", "--seeds", "1000000"],
        ["rollout", "tasep-gates-v0", "--set", "n_sites=1000000000000"],
        ["rollout", "resampling-neutral-v0", "--set", "n_types=1000000000000"],
    ],
)
def test_memory_that_cannot_be_met(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "needs at least" in refused(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_memory_that_cannot_be_met_from_python() -> None:
    import gymnasium

    for make in (
        lambda: invariantzoo.vec_env(ENCOUNTER, n_worlds=10**10),
        lambda: invariantzoo.parallel_env(CROWD, n_agents=10**10),
        lambda: gymnasium.make_vec(f"invariantzoo/{ENCOUNTER}", num_envs=10**11),
    ):
        with pytest.raises(ValueError, match=r"needs at least .* of memory"):
            make()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7 TiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        OverflowError("Python int too large"),
    ],
)
def test_memory_that_is_missed_later_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: Any) -> int:
        raise error

    monkeypatch.setattr("invariantzoo.commands.list.run", fail)
    refused(capsys, "list")


def test_faults_of_the_program_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: Any) -> int:
        raise RuntimeError("a fault")

    monkeypatch.setattr("invariantzoo.commands.list.run", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["list"])


# Choices


def test_choices_and_lengths_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    said = refused(capsys, "train", CROWD, "--set", "optimizer=sgd", *out)
    assert "must be one of adam, cgd" in said
    assert "did you mean 'pair'" in refused(capsys, "train", CROWD, "--set", "network=PAIR", *out)
    said = refused(capsys, "train", "tasep-ring-v0", "--set", "horizon=50", *out)
    assert "set by 'n_sweeps'" in said
    assert "n_sites, n_particles, hop_probability" in said
    assert "set by 'horizon'" in refused(capsys, "rollout", CROWD, "--set", "max_cycles=5")
    assert list(tmp_path.iterdir()) == []
