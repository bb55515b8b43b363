"""Trajectories of a CP2K run: positions, forces and cells, each step from the run that wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...envs.core.physics.units import HARTREE, SYMBOLS, atomic_number
from .cp2k_facts import Facts, read_facts
from .cp2k_input import unit
from .extended_xyz import blocks, key_values
from .raw import Frame, Raw, assembled, is_cut, periodic_cell, text_of
from .units import LENGTHS, Units

_PLACES = re.compile(r"(.+)-pos-1\.(xyz|extxyz)", re.I)
_OTHERS = re.compile(r".+-pos-1\.(dcd|pdb|xtc|trr|atomic|xmol)", re.I)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eEdD][-+]?[0-9]+)?", re.ASCII)


class Block(NamedTuple):
    """A frame of positions or forces.

    run: which of the file, counted up where the steps start again.  step: None where the
    title does not say it.  title: time and energy as they are written, by which the frames of one
    step are told apart.  energy in Hartree, NaN where unknown.  cell: of a title that holds one.
    """

    run: int
    step: int | None
    title: tuple[str, str]
    energy: float
    cell: np.ndarray | None
    species: tuple[str, ...]
    vectors: np.ndarray


class Blocks(NamedTuple):
    """The whole frames of a file, how many runs wrote it, and how many frames were left out."""

    blocks: list[Block]
    runs: int
    torn: int


class CellRow(NamedTuple):
    """A line of a *.cell file: which run of the file, step, and cell [3, 3] in Angstrom."""

    run: int
    step: int
    cell: np.ndarray


def is_trajectory(path: Path) -> bool:
    """Whether a file is the positions of a CP2K run, with its forces beside it."""
    match = _PLACES.fullmatch(path.name)
    return match is not None and path.is_file() and _forces_file(path) is not None


def read_cp2k(path: Path, units: Units | None = None) -> Raw:
    """The frames of a run, from its folder or its `*-pos-1.xyz`; energies are Hartree.

    Positions and forces are paired by step, and where a run was begun again by the part that wrote
    them; frames that are torn, or have no counterpart, are left out and counted. Cells come from
    `*-1.cell` or the titles, step by step, else from the input.
    units: of the trajectories, instead of what the input says.
    Raises ValueError for what is not understood.
    """
    folder, position_file, force_file = _files(path)
    stem = position_file.name[: position_file.name.lower().index("-pos-1.")]
    positions, forces = _read_blocks(position_file), _read_blocks(force_file)
    own_cells = any(block.cell is not None for block in positions.blocks)
    cell_path = position_file.with_name(f"{stem}-1.cell")
    facts = read_facts(folder, stem, required=not own_cells)
    pairs, left_out = _paired(positions, forces, position_file, force_file)
    read: list[Path] = [position_file, force_file]
    rows: list[CellRow] | None = None
    if not own_cells and cell_path.is_file():
        rows = _read_cells(cell_path)
        read.append(cell_path)
    elif not own_cells and facts is not None and not facts.keeps_cell:
        raise ValueError(
            f"{facts.path}: the cell of this run changes, and {cell_path.name} is missing: its "
            f"frames have no known cell (&MOTION / &PRINT / &CELL writes it)"
        )
    scale, pull_scale, unit_names = _scales(facts, units)
    frames, without_cell = [], 0
    for block, other in pairs:
        cell = _cell(block, facts, rows, positions.runs)
        if cell is None:
            without_cell += 1
            continue
        if block.species != other.species:
            raise ValueError(
                f"{force_file}: step {block.step} has other atoms than in {position_file.name}"
            )
        elements = {} if facts is None else facts.elements
        frames.append(
            Frame(
                np.array(
                    [_element(name, elements, position_file) for name in block.species], np.int64
                ),
                block.vectors * scale,
                other.vectors * pull_scale,
                cell,
                block.energy * HARTREE,
            )
        )
    left_out["without a cell"] = without_cell
    count = sum(left_out.values())
    what = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
    if not frames:
        raise ValueError(f"{folder} holds no frame with positions and forces ({what or 'none'})")
    remarks = (f"{count} frame{'s' if count > 1 else ''} left out ({what})",) if count else ()
    return assembled(frames, str(path), read, remarks)._replace(units=unit_names)


# ------------------------------------------------------------------------------------ files


def _files(path: Path) -> tuple[Path, Path, Path]:
    """Folder, positions and forces of a run; ValueError where there is none, or more than one."""
    if path.is_file():
        folder, places = path.parent, [path]
    else:
        folder = path
        files = sorted(file for file in folder.iterdir() if file.is_file())
        places = [file for file in files if _PLACES.fullmatch(file.name)]
        others = [file.name for file in files if _OTHERS.fullmatch(file.name)]
        if not places and others:
            raise ValueError(
                f"{folder}: {others[0]} is in a format that is not read: write trajectories and "
                f"forces with FORMAT XYZ or EXTXYZ"
            )
        if not places:
            raise ValueError(f"{folder} holds no *-pos-1.xyz: not the folder of a CP2K run")
        if len(places) > 1:
            names = ", ".join(file.name for file in places)
            raise ValueError(f"{folder} holds more than one run ({names}): name one of these files")
    pulls = _forces_file(places[0])
    if pulls is None:
        name = places[0].name.replace("-pos-", "-frc-")
        raise ValueError(
            f"{folder} has no {name}: set &MOTION / &PRINT / &FORCES with the same EACH"
        )
    return folder, places[0], pulls


def _forces_file(place: Path) -> Path | None:
    stem = place.name[: place.name.lower().rindex("-pos-1.")]
    for suffix in (place.suffix, ".xyz", ".extxyz"):
        file = place.with_name(f"{stem}-frc-1{suffix}")
        if file.is_file():
            return file
    return None


def _scales(facts: Facts | None, units: Units | None) -> tuple[float, float, str]:
    if units is not None:
        return LENGTHS[units.length], units.scales[2], f"{units}"
    if facts is None:
        return 1.0, unit("hartree*bohr^-1", "force"), "Angstrom, Hartree/bohr (assumed)"
    return facts.length, facts.force, facts.units


def _element(name: str, elements: dict[str, str], path: Path) -> int:
    """The atomic number of a symbol, or of a kind such as O1 by the input or its letters."""
    symbol = elements.get(name.upper(), name)
    if symbol.capitalize() in SYMBOLS[1:]:
        return atomic_number(symbol)
    letters = re.fullmatch(r"([A-Z][a-z]?)[0-9]+", symbol, re.ASCII)
    if letters is not None and letters[1] in SYMBOLS[1:]:
        return atomic_number(letters[1])
    raise ValueError(
        f"{path}: species {name!r} is no element up to Bi (&KIND {name} / ELEMENT in the input "
        f"says which)"
    )


# -------------------------------------------------------------------------------------- frames


def _read_blocks(path: Path) -> Blocks:
    """The whole frames of a trajectory; those that are torn are counted."""
    text = text_of(path)
    lines = text.split("\n")
    titles: dict[int, Title] = {}
    for k, line in enumerate(lines):
        try:
            title = _title(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {k + 1} {error}") from None
        if title is not None:
            titles[k] = title
    if not titles:
        return Blocks(list(_without_steps(path, text)), 1, 0)
    whole: list[Block] = []
    used = np.zeros(len(lines), bool)
    run, last = 0, -1
    for k, title in titles.items():
        run += title.step <= last
        last = title.step
        above = lines[k - 1].split() if k else []
        if not above or not re.fullmatch("[1-9][0-9]{0,8}", above[-1], re.ASCII):
            continue
        count = int(above[-1])  # behind the torn row of a killed run, if that had no newline
        rows = lines[k + 1 : k + 1 + count]
        end = k + 1 + count
        if end in titles:  # the count of the next frame stands in a row that was torn
            continue
        vectors = _vectors(rows) if len(rows) == count else None
        if vectors is None or (end == len(lines) and is_cut(text, rows)):
            continue
        species = tuple(row.split()[0] for row in rows)
        words = (title.time, title.written)
        whole.append(Block(run, title.step, words, title.energy, title.cell, species, vectors))
        used[k - (len(above) == 1) : end] = True
    if not whole:
        raise ValueError(f"{path} holds no whole frame")
    return Blocks(whole, run + 1, _count_torn(lines, used, set(titles)))


def _count_torn(lines: list[str], used: np.ndarray, titles: set[int]) -> int:
    """How many frames the lines are that belong to no whole one: one per title, or per stretch."""
    torn, inside, seen = 0, False, 0
    for k, line in enumerate([*lines, ""]):
        loose = k < len(lines) and not used[k] and bool(line.strip())
        if loose:
            inside = True
            seen += k in titles
        elif inside and (k == len(lines) or used[k]):
            torn += max(1, seen)
            inside, seen = False, 0
    return torn


class Title(NamedTuple):
    """What stands above a frame: step, time and energy as written, energy in Hartree, cell."""

    step: int
    time: str
    written: str
    energy: float
    cell: np.ndarray | None


def _title(line: str) -> Title | None:
    """The title of a frame as CP2K writes it (XYZ or EXTXYZ); None for any other line."""
    plain = re.match(r"\s*i\s*=\s*([0-9]+)\s*(?:,|$)", line, re.ASCII)
    if plain is not None:
        words = [re.search(rf"\b{key}\s*=\s*([^\s,]+)", line) for key in ("time", "E")]
        time, written = ("" if word is None else word[1] for word in words)
        return Title(int(plain[1]), time, written, _hartree(written), None)
    if "=" not in line or not re.search(r"\bStep\s*=", line, re.I):
        return None
    try:
        given = {key.lower(): value or "" for key, value in key_values(line)}
    except ValueError:
        return None  # torn
    if not re.fullmatch("[0-9]+", given.get("step", ""), re.ASCII):
        return None
    time, written = given.get("time", ""), given.get("energy", "")
    cell = _lattice(given)
    return Title(int(given["step"]), time, written, _hartree(written), cell)


def _lattice(given: dict[str, str]) -> np.ndarray | None:
    if "lattice" not in given:
        return None
    numbers = given["lattice"].split()
    flags = given.get("pbc", "T T T").split()
    if len(numbers) != 9 or not all(map(_NUMBER.fullmatch, numbers)):
        raise ValueError(f"has Lattice={given['lattice']!r}, not nine numbers")
    if len(flags) != 3 or {*flags} - {"T", "F"}:
        raise ValueError(f"has pbc={' '.join(flags)!r}, not three of T and F")
    lattice = np.array([float(number) for number in numbers]).reshape(3, 3)
    return periodic_cell(lattice, [flag == "T" for flag in flags])


def _hartree(word: str) -> float:
    return float(word) if _NUMBER.fullmatch(word) else np.nan


def _vectors(rows: list[str]) -> np.ndarray | None:
    """Vectors [rows, 3] of rows `symbol x y z`; None if one is torn, or overflows with stars."""
    table = [row.split() for row in rows]
    if any(len(row) != 4 for row in table):
        return None
    if not all(_NUMBER.fullmatch(word) for row in table for word in row[1:]):
        return None
    numbers = [[float(re.sub("[dD]", "e", word)) for word in row[1:]] for row in table]
    vectors = np.array(numbers)
    return vectors if np.isfinite(vectors).all() else None


def _without_steps(path: Path, text: str) -> Iterator[Block]:
    """The frames of a file whose titles hold no step; ValueError unless all of them are whole."""
    for block in blocks(path, text):
        vectors = _vectors(block.rows)
        if vectors is None:
            raise ValueError(
                f"{path}: frame {block.number} (line {block.line}) has no step in its title, and "
                f"rows that are not `symbol x y z`"
            )
        species = tuple(row.split()[0] for row in block.rows)
        yield Block(0, None, ("", ""), np.nan, None, species, vectors)


def _paired(
    positions: Blocks, forces: Blocks, place: Path, pulls: Path
) -> tuple[list[tuple[Block, Block]], dict[str, int]]:
    """Positions and forces of the same step and run, by step; how many are left out, and why."""
    first, second = positions.blocks, forces.blocks
    unnumbered = [block for block in (*first, *second) if block.step is None]
    if unnumbered:
        if len(unnumbered) < len(first) + len(second) or len(first) != len(second):
            raise ValueError(
                f"{place} has {len(first)} frames and {pulls.name} {len(second)}, and their titles "
                f"hold no step (i = ..., or Step=...): which belong together is not known"
            )
        return list(zip(first, second, strict=True)), {}
    both = positions.runs == forces.runs
    by_step: dict[int | None, list[Block]] = {}
    for block in second:
        by_step.setdefault(block.step, []).append(block)
    pairs: dict[int, tuple[Block, Block]] = {}
    unclear = written_again = alone = 0
    used: set[int] = set()
    for block in first:
        others = by_step.get(block.step, [])
        fits = [other for other in others if _fits(block, other)]
        if both:
            fits = [other for other in fits if other.run == block.run]
        else:
            twins = [
                candidate
                for candidate in first
                if candidate.step == block.step and candidate.title == block.title
            ]
            fits = fits if len(fits) == len(twins) == 1 and any(block.title) else []
        if len(fits) != 1 or block.step is None:
            alone += not others
            unclear += bool(others)
            continue
        used.add(id(fits[0]))
        written_again += block.step in pairs
        pairs[block.step] = (block, fits[0])
    steps = {block.step for block in first}
    lonely = sum(id(block) not in used and block.step not in steps for block in second)
    return [pairs[step] for step in sorted(pairs)], {
        "torn": positions.torn + forces.torn,
        "positions without forces": alone,
        "forces without positions": lonely,
        "of unclear run": unclear,
        "written again by a later run": written_again,
    }


def _fits(block: Block, other: Block) -> bool:
    """Whether times and energies, where both titles hold them, are written alike."""
    return all(a == b for a, b in zip(block.title, other.title, strict=True) if a and b)


def _read_cells(path: Path) -> list[CellRow]:
    """The lines of a *.cell file: step, time, nine numbers and the volume; torn ones are left."""
    rows: list[CellRow] = []
    run = 0
    for line in text_of(path).split("\n"):
        words = line.split()
        if len(words) != 12 or not re.fullmatch("[0-9]+", words[0], re.ASCII):
            continue
        if not all(map(_NUMBER.fullmatch, words[1:])):
            continue
        cell = np.array([float(word) for word in words[2:11]]).reshape(3, 3)
        volume = float(words[11])
        if not np.isclose(abs(np.linalg.det(cell)), volume, rtol=1e-4):
            continue
        run += bool(rows) and int(words[0]) <= rows[-1].step
        rows.append(CellRow(run, int(words[0]), cell))
    if not rows:
        raise ValueError(f"{path} holds no line of step, time, nine numbers of a cell and volume")
    return rows


def _cell(
    block: Block, facts: Facts | None, rows: list[CellRow] | None, runs: int
) -> np.ndarray | None:
    """The cell of a frame in Angstrom; None where it is not known."""
    if block.cell is not None:
        return block.cell
    if facts is None or facts.cell is None:
        return None
    if rows is None or not facts.cell.vectors.any():
        return facts.cell.vectors
    cells = [row for row in rows if row.step == block.step]
    if rows[-1].run + 1 == runs and len(cells) > 1:
        cells = [row for row in cells if row.run == block.run]
    if not cells or any(not np.array_equal(row.cell, cells[0].cell) for row in cells):
        return None
    return cells[0].cell
