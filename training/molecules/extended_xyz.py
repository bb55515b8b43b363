"""Extended XYZ, read by ASE and held to what was written.

ASE (its `ase.io.extxyz`) turns a frame into atoms. Around it stands what it does not look at: where
frames begin and end, quotes that are left open, keys that are given twice or written in another
case, values that are missing, periodicity that is no truth value, and columns beyond those that
`Properties` declares. What is read here means what ASE says of it; anything else is refused.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...envs.core.physics.units import SYMBOLS
from .raw import (
    Frame,
    Raw,
    assembled,
    atomic_numbers,
    energy_name,
    forces_column,
    is_cut,
    periodic_cell,
    text_of,
)

_CLOSING = {"'": "'", '"': '"', "{": "}", "[": "]"}
_PLACES = ("pos", "positions")
_UNKNOWN = ("none", "nan", "null")
_MISSPELT = {
    "Lattice": ("lattice", "cell", "unit_cell", "box"),
    "pbc": ("pbc", "periodic"),
    "Properties": ("properties",),
}


class Block(NamedTuple):
    """The text of a frame: its number, the line (from 1) of its comment, comment and rows."""

    number: int
    line: int
    comment: str
    rows: list[str]


def read_extended_xyz(path: Path, forces_key: str | None = None) -> Raw:
    """Frames with forces; ValueError, with frame and line, for what is not understood."""
    frames: list[Frame] = []
    key = ""
    for block in blocks(path, text_of(path)):
        try:
            frame, name = _frame(block, forces_key)
            if frames and name != key:
                raise ValueError(f"has its forces in {name}, frame 0 in {key}: take --forces-key")
        except ValueError as error:
            raise ValueError(f"{path}: frame {block.number} (line {block.line}) {error}") from None
        frames.append(frame)
        key = name
    remarks = () if key == "forces" else (f"forces from {key}, energies from {energy_name(key)}",)
    return assembled(frames, str(path), (path,), remarks)


def blocks(path: Path, text: str) -> Iterator[Block]:
    """The frames of a text; ValueError where it holds more than whole frames and blank lines."""
    lines = text.split("\n")
    last = max((k for k, line in enumerate(lines) if line.strip()), default=-1)
    at = number = 0
    while at <= last:
        if not lines[at].strip():
            at += 1
            continue
        count = re.fullmatch(r"\s*([0-9]{1,9})\s*", lines[at], re.ASCII)
        if count is None:
            shown = lines[at].strip()[:40]
            raise ValueError(
                f"{path}: line {at + 1} must hold the number of atoms of frame {number}, "
                f"not {shown!r}"
            )
        atoms = int(count[1])
        if atoms == 0:
            raise ValueError(f"{path}: line {at + 1}: frame {number} has no atoms")
        rows = lines[at + 2 : at + 2 + atoms]
        end = at + 1 + atoms
        if end > last or (end == last and is_cut(text, rows)):
            raise ValueError(
                f"{path} ends inside frame {number}, which begins in line {at + 1} "
                f"({atoms} atoms): the file is cut off"
            )
        yield Block(number, at + 2, lines[at + 1], rows)
        at += 2 + atoms
        number += 1


def key_values(comment: str) -> list[tuple[str, str | None]]:
    """Keys and values of a comment line, in order; None for a word without a value.

    The grammar of ASE less what it lets pass. Raises ValueError for a quote or bracket that is not
    closed, or that begins or ends within a word, and for an equals sign without a key or value.
    """
    pairs: list[tuple[str, str | None]] = []
    comment = comment.strip()
    at, end = 0, len(comment)

    def skip(at: int) -> int:
        while at < end and comment[at].isspace():
            at += 1
        return at

    at = skip(at)
    while at < end:
        key, at, _ = _word(comment, at, stop_at_equals=True)
        after = skip(at)
        if after >= end or comment[after] != "=":
            if key:
                pairs.append((key, None))
            at = after
            continue
        if not key:
            raise ValueError(f"has a value without a key: {comment[after:][:30]!r}")
        start = skip(after + 1)
        if start >= end:
            raise ValueError(f"has no value for {key!r}")
        value, at, quoted = _word(comment, start, stop_at_equals=False)
        if start > after + 1 and not quoted and "=" in value:
            raise ValueError(f"has no value for {key!r}")
        if not quoted and value.endswith("=") and at < end:
            raise ValueError(
                f"has a value of {key!r} that ends in =, which is read in different ways"
            )
        if not value and at < end:
            raise ValueError(f"has an empty value for {key!r}, which is read in different ways")
        pairs.append((key, value))
        at = skip(at)
    return pairs


def _word(text: str, at: int, *, stop_at_equals: bool) -> tuple[str, int, bool]:
    """A word or a quoted text from `at` on, where it ends, and whether it was quoted."""
    closing = _CLOSING.get(text[at])
    letters: list[str] = []
    if closing is not None:
        start = at
        at += 1
        while at < len(text) and text[at] != closing:
            if text[at] == "\\":
                at += 1
            letters += text[at : at + 1]
            at += 1
        if at >= len(text):
            raise ValueError(f"leaves {text[start]} open: {text[start:][:30]!r}")
        at += 1
        if at < len(text) and not (text[at].isspace() or (stop_at_equals and text[at] == "=")):
            raise ValueError(f"goes on behind {closing}: {text[start:][:40]!r}")
        return "".join(letters), at, True
    while at < len(text) and not text[at].isspace():
        letter = text[at]
        if letter == "=" and stop_at_equals:
            break
        if letter in _CLOSING or letter in "}]\\":
            raise ValueError(f"has {letter} within a word: {text[max(0, at - 15) :][:30]!r}")
        letters.append(letter)
        at += 1
    return "".join(letters), at, False


class Column(NamedTuple):
    """A property of every atom: its type R, I, S or L, its first column and their number."""

    name: str
    type: str
    first: int
    width: int


def columns_of(properties: str) -> dict[str, Column]:
    """The columns that `Properties` declares, by name; ValueError for another form."""
    words = properties.split(":")
    columns: dict[str, Column] = {}
    first = 0
    for k in range(0, len(words), 3):
        name, type_, count = (*words[k : k + 3], "", "")[:3]
        number = re.fullmatch(r"[1-9][0-9]{0,3}", count, re.ASCII)
        if not name or type_ not in ("R", "I", "S", "L") or number is None:
            raise ValueError(
                f"has Properties={properties!r}, not name:type:count with types R, I, S, L"
            )
        if name in columns:
            raise ValueError(
                f"has Properties with {name!r} twice"
                + (": name other columns of forces otherwise" if "forc" in name.lower() else "")
            )
        columns[name] = Column(name, type_, first, int(count))
        first += int(count)
    return columns


def _frame(block: Block, forces_key: str | None) -> tuple[Frame, str]:
    """A frame and the column of its forces; ValueError for what is not understood."""
    from ase.io.extxyz import key_val_str_to_dict, read_xyz

    pairs = key_values(block.comment)
    _require_clear(pairs)
    given = dict(pairs)
    columns = columns_of(given.get("Properties") or "species:S:1:pos:R:3")
    vectors = [
        name for name, column in columns.items() if column.type in "RI" and column.width == 3
    ]
    inline = [
        key
        for key, value in pairs
        if "forc" in key.lower() and len((value or "").split()) == 3 * len(block.rows)
    ]
    forces_key = forces_column(
        [name for name in vectors if name not in _PLACES] + (inline if vectors else []),
        forces_key,
        [*columns, *(key for key, value in pairs if value is not None and key not in _MISSPELT)],
    )
    if forces_key in inline:
        raise ValueError(f"has {forces_key} in its comment: forces must be a column of Properties")
    _require_rows(block, columns, forces_key)
    try:
        info = key_val_str_to_dict(block.comment)
        text = "\n".join([str(len(block.rows)), block.comment, *block.rows, ""])
        (atoms,) = read_xyz(io.StringIO(text), index=slice(0, 1))
    except Exception as error:  # whatever ASE or numpy raise for a frame that they cannot read
        raise ValueError(f"is not read by ASE: {error}") from None
    if set(info) != set(given) or info.get("Properties") != given.get("Properties"):
        raise ValueError(f"is ambiguous: keys {sorted(given)} or {sorted(info)}")
    energy = _energy(info, pairs, energy_name(forces_key))
    results = {} if atoms.calc is None else atoms.calc.results
    forces = atoms.arrays[forces_key] if forces_key in atoms.arrays else results[forces_key]
    lattice = info["Lattice"].T if "Lattice" in info else None
    frame = Frame(
        atomic_numbers(atoms.numbers),
        np.asarray(atoms.positions, float),
        np.asarray(forces, float),
        periodic_cell(lattice, _periodicity(info)),
        energy,
    )
    return frame, forces_key


def _require_clear(pairs: list[tuple[str, str | None]]) -> None:
    """Raise ValueError where a key that matters is given twice, misspelt, or without a value."""
    for key, names in _MISSPELT.items():
        values = [value for name, value in pairs if name == key]
        if len(values) > 1:
            raise ValueError(f"gives {key} twice")
        if values and not (values[0] or "").strip():
            raise ValueError(f"gives {key} without a value")
        others = [name for name, value in pairs if name.lower() in names and value is not None]
        if not values and others:
            raise ValueError(f"has {others[0]!r}, which is not understood: is {key} meant?")


def _require_rows(block: Block, columns: dict[str, Column], forces_key: str) -> None:
    """Raise ValueError where rows do not hold what is declared."""
    places = [name for name in _PLACES if name in columns]
    if len(places) != 1 or columns[places[0]].type not in "RI" or columns[places[0]].width != 3:
        raise ValueError(f"needs one property pos:R:3 (has {', '.join(columns)})")
    names = [columns[name] for name in ("species", "symbols") if name in columns]
    charges = [columns[name] for name in ("Z", "numbers") if name in columns]
    if len(names) > 1 or len(charges) > 1 or not names + charges:
        raise ValueError(f"needs one property species:S:1 or Z:I:1 (has {', '.join(columns)})")
    for column, type_ in [(c, "S") for c in names] + [(c, "I") for c in charges]:
        if (column.type, column.width) != (type_, 1):
            raise ValueError(f"needs {column.name}:{type_}:1, not {column.type}:{column.width}")
    width = sum(column.width for column in columns.values())
    numeric = [c for c in columns.values() if c.type in "RI"]
    for k, row in enumerate(block.rows):
        words, where = row.split(), f"has line {block.line + 1 + k} with"
        if len(words) != width:
            raise ValueError(f"{where} {len(words)} columns, not the {width} of its Properties")
        for column in numeric:
            for word in words[column.first : column.first + column.width]:
                if not _is_number(word, column.type):
                    kind = "number" if column.type == "R" else "whole number"
                    raise ValueError(f"{where} {word!r}, no {kind}, in {column.name}")
        for column in names:
            if words[column.first].capitalize() not in SYMBOLS[1:]:
                raise ValueError(f"{where} species {words[column.first]!r}, no element up to Bi")
        if names and charges:
            symbol, number = words[names[0].first].capitalize(), int(words[charges[0].first])
            if SYMBOLS.index(symbol) != number:
                raise ValueError(f"{where} species {symbol} of atomic number {number}")


def _is_number(word: str, type_: str) -> bool:
    try:
        value = float(word) if type_ == "R" else int(word)
    except ValueError:
        return False
    return type_ == "R" or abs(value) < 2**31


def _energy(info: dict[str, Any], pairs: list[tuple[str, str | None]], key: str) -> float:
    """The energy of a frame, whose key may be in another case; NaN where unknown."""
    alike = [name for name, _ in pairs if name == key]
    alike = alike or [name for name, _ in pairs if name.lower() == key.lower()]
    if len(alike) > 1:
        raise ValueError(f"has more than one energy: {', '.join(alike)}")
    if not alike:
        return np.nan
    key = alike[0]
    value = info[key]
    if isinstance(value, str) and value.strip().lower() in _UNKNOWN:
        return np.nan
    number = np.asarray(value)
    if isinstance(value, bool | np.bool_) or number.ndim or number.dtype.kind not in "iuf":
        raise ValueError(f"has {key}={str(value)[:40]!r}, which is no number")
    if np.isinf(float(number)):
        raise ValueError(f"has {key}={value}, which is not finite")
    return float(number)


def _periodicity(info: dict[str, Any]) -> list[bool] | None:
    """The truth values of `pbc`, or None where it is not given."""
    if "pbc" not in info:
        return None
    value = info["pbc"]
    flags = np.asarray(value)
    if flags.ndim == 0:
        flags = np.repeat(flags, 3)
    is_truth = flags.dtype.kind == "b" or (flags.dtype.kind in "iu" and set(flags) <= {0, 1})
    if flags.shape != (3,) or not is_truth:
        raise ValueError(f"has pbc={str(value)[:30]!r}, not three of T and F")
    return [bool(flag) for flag in flags]
