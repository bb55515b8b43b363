"""Reference data by other programs; none of them is needed here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from invariantzoo.__main__ import main
from invariantzoo.envs.core.files import claim
from invariantzoo.training.molecules.frames import read_frames
from invariantzoo.training.molecules.reference import cp2k as reference
from invariantzoo.training.molecules.reference.cp2k import (
    ReferenceConfig,
    deck,
    lattice_start,
    make_reference,
)

# A program that takes CP2K's deck and writes what CP2K would: still molecules.
STUB = """#!/bin/sh
steps=$(sed -n 's/^ *STEPS *//p' water.inp); every=$(sed -n 's/^ *MD //p' water.inp | head -1)
from=0; [ -f water-1.restart ] && from=$(sed -n 's/.*VAL *//p' water-1.restart)
grep -q EXT_RESTART water.inp && [ $from = 0 ] && exit 3
k=$from; [ $from = 0 ] || k=$((from + every))
while [ $k -le $((from + steps)) ]; do
  for what in pos frc; do
    head -1 start.xyz; echo " i = $k, time = 0.0, E = -17.0"
    if [ $what = pos ]; then tail -n +3 start.xyz; else
      tail -n +3 start.xyz | awk '{print $1, 0.01 * (NR % 3 - 1), 0.01, -0.02 * (NR % 2)}'; fi
  done > both
  n=$(($(head -1 start.xyz) + 2))
  head -$n both >> water-pos-1.xyz; tail -$n both >> water-frc-1.xyz; k=$((k + every))
done
rm both; echo "STEP_START_VAL $((from + steps))" > water-1.restart
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "cp2k.psmp"
    program.write_text(STUB)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return tmp_path / "run"


def silent(text: str) -> None:
    pass


def test_a_run_is_written_read_back_and_lengthened(stub: Path) -> None:
    config = ReferenceConfig("cp2k", waters=4, every=5)
    frames = read_frames(make_reference(config, stub, 20, silent))
    assert len(frames.positions) == 5
    frames = read_frames(make_reference(config, stub, 30, silent))
    assert len(frames.positions) == 7
    start, cell = lattice_start(4, 0)
    np.testing.assert_allclose(frames.positions[-1], start, atol=1e-6)
    np.testing.assert_allclose(frames.cell[0], cell, atol=1e-6)
    np.testing.assert_allclose(frames.forces[0, :, 1], 0.01 * 51.4220675, rtol=1e-6)
    with np.load(stub / "frames.npz") as file:
        assert file["step"].tolist() == [0, 5, 10, 15, 20, 25, 30]


def test_first_steps_are_left_out(stub: Path) -> None:
    path = make_reference(ReferenceConfig("cp2k", waters=2, every=5, warm_up=10), stub, 20, silent)
    assert len(read_frames(path).positions) == 3


def test_a_folder_of_another_run_is_refused(stub: Path) -> None:
    make_reference(ReferenceConfig("cp2k", waters=2, every=5), stub, 10, silent)
    with pytest.raises(ValueError, match="waters=2"):
        make_reference(ReferenceConfig("cp2k", waters=3, every=5), stub, 10, silent)


def test_folders_of_others_are_refused(
    stub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reference", "--engine", "cp2k", "--waters", "2", "--steps", "10", "--every", "5"]

    def refused(out: Path | str, *more: str, code: int = 2) -> str:
        assert main([*words, "--out", str(out), *more]) == code
        printed, err = capsys.readouterr()
        assert printed == ""
        assert err.count("\n") == 1
        return err

    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    assert "is not empty and holds no reference run" in refused(other)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
    for text in ('{"schema": 2, "plan": {}}', "[]"):
        (other / "config.json").write_text(text)
        assert "holds no reference run" in refused(other)
    (other / "config.json").write_text('{"engine": "cp')
    assert "config.json cannot be read" in refused(other)
    assert "could not be made" in refused("/proc/no/run")
    assert "could not be made" in refused(other / "mine.txt")
    assert "waters=1000000000000 needs at least" in refused(stub, "--waters", "1000000000000")
    with claim(stub):
        assert "in use by process" in refused(stub, code=75)


def test_frames_keep_their_steps_where_some_are_missing(stub: Path) -> None:
    config = ReferenceConfig("cp2k", waters=2, every=5, warm_up=10)
    make_reference(config, stub, 20, silent)
    forces = stub / "water-frc-1.xyz"
    lines = forces.read_text().splitlines(keepends=True)
    at = next(k for k, line in enumerate(lines) if "i = 5," in line)
    torn = lines[: at - 1] + lines[at - 1 : at + 4] + lines[at + 7 :]  # two rows are lost
    forces.write_text("".join(torn))
    make_reference(config, stub, 30, silent)
    with np.load(stub / "frames.npz") as file:
        assert file["step"].tolist() == [10, 15, 20, 25, 30]
        assert len(file["positions"]) == 5


def test_a_torn_restart_file_is_replaced_by_the_one_before(stub: Path) -> None:
    config = ReferenceConfig("cp2k", waters=2, every=5)
    make_reference(config, stub, 20, silent)
    restart = stub / "water-1.restart"
    whole = "&MOTION\n &MD\n  STEP_START_VAL 15\n &END MD\n&END MOTION\n"
    (stub / "water-1.restart.bak-1").write_text(whole)
    restart.write_text("&MOTION\n &MD\n  STEP_START_VAL 20\n &END MD\n")
    make_reference(config, stub, 30, silent)
    with np.load(stub / "frames.npz") as file:
        assert file["step"].tolist() == [0, 5, 10, 15, 20, 25, 30]
    restart.write_text("")
    with pytest.raises(ValueError, match="is torn, and there is none before it"):
        make_reference(config, stub, 40, silent)


def test_a_program_that_fails_is_reported(stub: Path) -> None:
    program = stub.parent / "bin" / "cp2k.psmp"
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(OSError, match="stopped at step 0 of 10"):
        make_reference(ReferenceConfig("cp2k", waters=2, every=5), stub, 10, silent)


def test_a_missing_program_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["reference", "--engine", "cp2k", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "apt install cp2k" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_bad_choices_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference", "--engine", "cp2", "--out", str(tmp_path)]) == 2
    assert "did you mean 'cp2k'" in capsys.readouterr().err
    words = ["reference", "--engine", "tblite", "--method", "dft", "--out", str(tmp_path)]
    assert main(words) == 2
    assert "tblite" in capsys.readouterr().err


@pytest.mark.parametrize("waters", [1, 8, 16, 32, 20])
def test_molecules_start_apart(waters: int) -> None:
    x, cell = lattice_start(waters, 3)
    oxygen = x[::3]
    r = oxygen[:, None] - oxygen
    r -= cell[0, 0] * np.round(r / cell[0, 0])
    gap = np.linalg.norm(r, axis=-1)[np.triu_indices(waters, 1)]
    assert gap.min(initial=9) > 2.3
    np.testing.assert_allclose(np.linalg.norm(x[1::3] - oxygen, axis=-1), 0.97)


def test_decks_differ_in_what_they_should() -> None:
    xtb = deck(ReferenceConfig("cp2k"), 7.8, 100)
    dft = deck(ReferenceConfig("cp2k", method="dft"), 7.8, 100, restart=True)
    assert "METHOD xTB" in xtb
    assert "BASIS_SET" not in xtb
    assert "REVPBE" in dft
    assert dft.startswith("&EXT_RESTART")
    assert "SEED 1\n" in xtb
    large = deck(ReferenceConfig("cp2k", seed=10**23), 7.8, 100)
    assert 0 < int(large.partition("SEED")[2].split()[0]) < 2**31
    for text in (xtb, dft):
        opened = [w for w in text.split() if w.startswith("&") and not w.startswith("&END")]
        assert len(opened) == text.count("&END")


def test_tblite_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In goes that end within blocks, and after a process died in one."""
    pytest.importorskip("tblite")
    monkeypatch.setattr(reference, "_BLOCK", 4)
    config = ReferenceConfig("tblite", waters=2, every=3)
    for steps in (3, 5, 8, 11, 13):
        path = make_reference(config, tmp_path / "many", steps, silent)
    whole = make_reference(config, tmp_path / "one", 13, silent)
    with np.load(whole) as one, np.load(path) as many:
        assert one["step"].tolist() == [3, 6, 9, 12]
        for name in one.files:
            assert one[name].tobytes() == many[name].tobytes()
    assert json.loads((tmp_path / "one" / "config.json").read_text())["engine"] == "tblite"
    (tmp_path / "one" / "state.npz").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(ValueError, match="cannot be read"):
        make_reference(config, tmp_path / "one", 16, silent)
    assert reference.ENGINES == ("cp2k", "tblite")
