"""What the inputs and restart files of a CP2K run say: its cell, units and elements."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .cp2k_cell import Cell, cell_of
from .cp2k_input import Section, is_true, read_input, unit, word_of, words_of

_FIXED = ("NVE", "NVT", "ISOKIN", "LANGEVIN", "NVT_ADIABATIC")  # ensembles that keep the cell
_PRINT_KEYWORDS = (
    "FORMAT",
    "UNIT",
    "FILENAME",
    "PRINT_ATOM_KIND",
    "CHARGE_OCCUP",
    "CHARGE_BETA",
    "CHARGE_EXTENDED",
    "CHARGE_O",
    "CHARGE_B",
    "ADD_LAST",
    "COMMON_ITERATION_LEVELS",
    "LOG_PRINT_KEY",
    "MATCH_ITERATION_LEVELS",
    "BACKUP_COPIES",
)
_FORMATS = ("XMOL", "XYZ", "EXTXYZ")


class Facts(NamedTuple):
    """What an input says of a run.

    cell: None where it holds none.  keeps_cell: whether the ensemble does.  length, force:
    Angstrom and eV/Angstrom of one unit in the trajectories, and their names.  elements: symbols of
    the kinds that the input names.
    """

    path: Path
    cell: Cell | None
    keeps_cell: bool
    length: float
    force: float
    units: str
    elements: dict[str, str]


def read_facts(folder: Path, stem: str, *, required: bool) -> Facts | None:
    """What the inputs of a run say; ValueError where they disagree or, if required, say nothing."""
    inputs = _inputs(sorted(folder.glob("*.inp")), stem)
    restart = folder / f"{stem}-1.restart"
    if not inputs:
        restarts = [restart] if restart.is_file() else sorted(folder.glob("*.restart"))[-1:]
        inputs = _inputs(restarts, stem)
    facts = [_facts_of(path, root, folder) for path, root in inputs]
    facts = [fact for fact in facts if fact.cell is not None] or facts
    if not facts or facts[0].cell is None:
        if required:
            raise ValueError(f"{folder} has no input (*.inp) or restart file with a &CELL")
        return facts[0] if facts else None
    first = facts[0]
    if first.keeps_cell and inputs[0][0].suffix == ".inp" and restart.is_file():
        facts += [_facts_of(path, root, folder) for path, root in _inputs([restart], stem)]
    for other in facts[1:]:
        same = other.cell is None or _same(first.cell, other.cell)
        if not same or (other.length, other.force) != (first.length, first.force):
            what = "units" if same else "cells"
            raise ValueError(
                f"{first.path} and {other.path} have different {what}: keep the input of this run"
            )
    return first


def _same(first: Cell | None, second: Cell | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.allclose(first.vectors, second.vectors, rtol=1e-6, atol=1e-6)


def _inputs(paths: list[Path], stem: str) -> list[tuple[Path, Section]]:
    """The inputs of a run: those of its project, else that of its name, else all."""
    roots = []
    for path in paths:
        try:
            root = read_input(path)
        except ValueError:
            text = path.read_text(encoding="utf-8", errors="replace")
            if re.search(r"^\s*&(FORCE_EVAL|GLOBAL|SUBSYS|CELL)\b", text, re.M | re.I):
                raise
            continue  # of another program
        if any(root.all(name) for name in ("FORCE_EVAL", "SUBSYS", "CELL")):
            roots.append((path, root))
    whole = [(path, root) for path, root in roots if root.all("FORCE_EVAL")]
    roots = whole or roots  # a part that others include, where there is nothing else
    named = [(path, root) for path, root in roots if _is_project(root, stem)]
    return named or [(path, root) for path, root in roots if path.stem == stem] or roots


def _is_project(root: Section, stem: str) -> bool:
    for section in root.all("GLOBAL"):
        for keyword in section.keywords:
            if keyword.name in ("PROJECT", "PROJECT_NAME") and "$" not in keyword.text:
                name = "".join(words_of(keyword)[:1])
                return stem == name or stem.startswith(f"{name}-")
    return stem == "PROJECT" or stem.startswith("PROJECT-")


def _facts_of(path: Path, root: Section, folder: Path) -> Facts:
    length, force, names = 1.0, unit("hartree*bohr^-1", "force"), ["Angstrom", "Hartree/bohr"]
    keeps = True
    for motion in root.all("MOTION"):
        for dynamics in motion.all("MD"):
            ensemble = dynamics.value("ENSEMBLE")
            keeps = keeps and (ensemble is None or word_of(ensemble) in _FIXED)
        motion.value("")
        for printed in motion.all("PRINT"):
            printed.value("")
            for section in printed.all("TRAJECTORY"):
                length, names[0] = _unit_of(section, "length", length, names[0])
            for section in printed.all("FORCES"):
                force, names[1] = _unit_of(section, "force", force, names[1])
    for section in root.all("GLOBAL"):
        kind = section.value("RUN_TYPE")
        if kind is not None and word_of(kind) in ("CELL_OPT", "MC", "MONTECARLO", "TMC", "TAMC"):
            keeps = False
    cell, elements = cell_and_elements(root, folder)
    restarted = _restarted(root, folder)
    if restarted is not None and cell is not None and keeps and not _same(cell, restarted):
        raise ValueError(
            f"{cell.where}: this cell is not that of the run, which took the one of "
            f"{restarted.where} (&EXT_RESTART): write the cell of every frame (&MOTION / &PRINT / "
            f"&CELL), or put the right one into the input"
        )
    units = f"{names[0]}, {names[1]} (by {path.name})"
    return Facts(path, cell, keeps, length, force, units, elements)


def cell_and_elements(root: Section, folder: Path) -> tuple[Cell | None, dict[str, str]]:
    cells: list[Cell] = []
    elements: dict[str, str] = {}
    root.value("")  # nothing at the top may be missing
    evaluations = root.all("FORCE_EVAL") or [root]
    for evaluation in evaluations:
        evaluation.value("")
        subsystem = evaluation.one("SUBSYS")
        if subsystem is None and evaluation is not root:
            continue
        subsystem = subsystem or root
        subsystem.value("")
        section = subsystem.one("CELL")
        if section is not None:
            cells.append(cell_of(section, folder))
        for kind in subsystem.all("KIND"):
            for keyword in kind.keywords:
                if keyword.name in ("ELEMENT", "ELEMENT_SYMBOL") and kind.parameter:
                    elements[kind.parameter.split()[0].upper()] = words_of(keyword)[0]
    for other in cells[1:]:
        if not _same(cells[0], other):
            raise ValueError(f"{other.where}: this &FORCE_EVAL has another cell than the first")
    return (cells[0] if cells else None), elements


def _unit_of(section: Section, dimension: str, scale: float, name: str) -> tuple[float, str]:
    for keyword in section.keywords:
        if keyword.name not in _PRINT_KEYWORDS and not keyword.name.startswith(("@", "__")):
            known = ", ".join(_PRINT_KEYWORDS)
            raise ValueError(
                f"{keyword.where}: {keyword.name} is not understood in &{section.name} "
                f"(known: {known})"
            )
    form = section.value("FORMAT")
    if form is not None and word_of(form) not in _FORMATS:
        raise ValueError(
            f"{form.where}: FORMAT {form.text} is not read ({', '.join(_FORMATS)} are)"
        )
    given = section.value("UNIT")
    if given is None:
        return scale, name
    words = words_of(given)
    try:
        if len(words) != 1:
            raise ValueError("one unit is needed")
        return unit(words[0].strip("[]"), dimension), words[0].strip("[]")
    except ValueError as error:
        raise ValueError(f"{given.where}: UNIT {given.text}: {error}") from None


def _restarted(root: Section, folder: Path) -> Cell | None:
    """The cell of the restart file that a run went on from; ValueError where it is missing."""
    section = root.one("EXT_RESTART")
    if section is None or section.parameter.strip(".").upper() in ("F", "FALSE", "OFF", "NO"):
        return None
    name = section.value("RESTART_FILE_NAME") or section.value("EXTERNAL_FILE")
    default = is_true(section.value("RESTART_DEFAULT"), True)
    if name is None or not is_true(section.value("RESTART_CELL"), default):
        return None
    words = words_of(name)
    if not words:  # as CP2K writes it into restart files
        return None
    places = [folder / word for word in words] + [folder / Path(word).name for word in words]
    for path in places:
        if path.is_file():
            return cell_and_elements(read_input(path), folder)[0]
    raise ValueError(
        f"{name.where}: the run took its cell from {name.text}, which is not in {folder} "
        f"(RESTART_CELL F, if it did not)"
    )
