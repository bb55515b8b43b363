"""The input of a CP2K run: its sections, and what they say of cells, units and names.

Sections, keywords, variables, conditions, included files, comments, continued lines, products,
fractions and units in brackets are read as CP2K reads them: the cells that it prints are the judge.
Sections that do not matter here are passed over, whatever the version of CP2K that knows them; of
those that do, what is not understood is refused with its file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...envs.core.physics.units import BOHR, HARTREE, HARTREE_PER_BOHR

COMMENTS = "!#"
_SEPARATORS = ",:;="
_DEEPEST = 32  # files that include one another
_LONGEST = 4096  # letters of a line whose variables are replaced
_FACTOR = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[deq][-+]?[0-9]+)?", re.I | re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

_JOULE = 1 / 1.602176634e-19  # eV
_UNITS = {  # of the dimension, in Angstrom, eV, degrees
    "ANGSTROM": ("length", 1.0),
    "BOHR": ("length", BOHR),
    "AU_L": ("length", BOHR),
    "M": ("length", 1e10),
    "NM": ("length", 10.0),
    "PM": ("length", 0.01),
    "HARTREE": ("energy", HARTREE),
    "AU_E": ("energy", HARTREE),
    "EV": ("energy", 1.0),
    "KEV": ("energy", 1000.0),
    "RY": ("energy", HARTREE / 2),
    "JOULE": ("energy", _JOULE),
    "J": ("energy", _JOULE),
    "KCALMOL": ("energy", 0.0433641043),
    "KJMOL": ("energy", 0.0103642696),
    "JMOL": ("energy", 0.0103642696e-3),
    "WAVENUMBER_E": ("energy", 1.239841984e-4),
    "K_E": ("energy", 8.617333262e-5),
    "AU_F": ("force", HARTREE_PER_BOHR),
    "N": ("force", _JOULE * 1e-10),
    "NEWTON": ("force", _JOULE * 1e-10),
    "MN": ("force", _JOULE * 1e-13),
    "MNEWTON": ("force", _JOULE * 1e-13),
    "DEG": ("angle", 1.0),
    "RAD": ("angle", 180 / np.pi),
}


class Keyword(NamedTuple):
    """A keyword in capitals, the text behind it without comments, and where it stands.

    Names that begin with @ are what could not be followed: a missing file, a line that CP2K drops.
    """

    name: str
    text: str
    where: str


class Section(NamedTuple):
    """A section in capitals, what stands behind its name, and what is in it."""

    name: str
    parameter: str
    where: str
    keywords: list[Keyword]
    sections: list[Section]

    def all(self, name: str) -> list[Section]:
        """The sections of a name, in order."""
        return [section for section in self.sections if section.name == name]

    def one(self, name: str) -> Section | None:
        """The section of a name, None where there is none; ValueError where it repeats."""
        sections = self.all(name)
        if len(sections) > 1:
            raise ValueError(f"{sections[1].where}: &{name} is given twice in &{self.name}")
        return sections[0] if sections else None

    def value(self, name: str) -> Keyword | None:
        """The keyword of a name, None where there is none; ValueError where it repeats.

        Raises ValueError as well where the section holds lines that could not be followed.
        """
        for keyword in self.keywords:
            if keyword.name.startswith("@"):
                raise ValueError(f"{keyword.where}: {keyword.text}")
        keywords = [keyword for keyword in self.keywords if keyword.name == name]
        if len(keywords) > 1:
            raise ValueError(f"{keywords[1].where}: {name} is given twice in &{self.name}")
        return keywords[0] if keywords else None


# --------------------------------------------------------------------------------- sections


def read_input(path: Path) -> Section:
    """The sections of an input or restart file; ValueError, with file and line, for no such file.

    Included files are looked for where CP2K runs, beside the input.
    """
    root = Section("", "", str(path), [], [])
    stack = [root]
    where = str(path)
    for where, text in _joined(_lines(path, {}, ())):
        if text.startswith("&"):
            name, _, rest = text[1:].partition(" ")
            name = name.upper()
            if name == "END":
                _close(stack, rest.split(), where)
            else:
                section = Section(name, rest.strip(), where, [], [])
                stack[-1].sections.append(section)
                stack.append(section)
            continue
        name, _, rest = text.partition(" ")
        name = name.rstrip(_SEPARATORS)
        stack[-1].keywords.append(Keyword(name.upper(), rest.strip(), where))
    if len(stack) > 1:
        raise ValueError(f"{where}: ends inside &{stack[-1].name}, opened in {stack[-1].where}")
    return root


def _close(stack: list[Section], words: list[str], where: str) -> None:
    names = [word.upper() for word in words]
    if names[:1] == ["SECTION"]:
        names = names[1:]
    if len(stack) == 1:
        raise ValueError(f"{where}: &END where no section is open")
    if names not in ([], [stack[-1].name]):
        raise ValueError(f"{where}: &END {' '.join(names)} closes &{stack[-1].name}")
    stack.pop()


def _joined(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Lines without comments and outer blanks, those that end in a backslash with the next one."""
    begun, first = "", ""
    for where, line in lines:
        text = " ".join(_without_comment(line).split())
        if not text:
            continue
        if text.startswith("@"):  # what could not be followed
            yield where, text
            continue
        begun, first = f"{begun} {text}".strip(), first or where
        if begun.endswith("\\"):
            begun = begun[:-1].rstrip()
            continue
        if "\\" in begun:
            raise ValueError(f"{where}: something stands behind a \\ that continues a line")
        yield first, begun
        begun, first = "", ""
    if begun:
        raise ValueError(f"{first}: the file ends where a line should be continued")


def _without_comment(line: str) -> str:
    quoted = False
    for k, letter in enumerate(line):
        if letter == '"':
            quoted = not quoted
        elif letter in COMMENTS and not quoted:
            return line[:k]
    return line


# ----------------------------------------------------------------------------- preprocessor


def _lines(
    path: Path, variables: dict[str, str], above: tuple[Path, ...]
) -> Iterator[tuple[str, str]]:
    """Lines of a file and of those that it includes, variables replaced, with where they stand."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    folder = above[0].parent if above else path.parent
    skipping = ""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        where = f"{path}: line {number}"
        at = line.find("@")
        commented = any(-1 < line.find(sign) < at for sign in COMMENTS)
        if skipping:
            if at >= 0 and not commented and "@ENDIF" in line[at:].split()[0].upper():
                skipping = ""
            continue
        if line.strip()[:1] in ("", *COMMENTS):
            continue
        line = _replaced(line, variables, where)
        at = line.find("@")
        if at < 0:
            yield where, line
            continue
        commented = any(-1 < line.find(sign) < at for sign in COMMENTS)
        words = line[at:].split(None, 1)
        tag, rest = words[0].upper(), words[1].strip() if len(words) > 1 else ""
        if commented or tag not in _DIRECTIVES:
            yield where, f"@LINE this line holds an @ and is dropped by CP2K: {line.strip()[:60]}"
        elif tag == "@SET":
            name, _, value = rest.replace("\t", " ").partition(" ")
            if not _NAME.fullmatch(name) or not value.strip():
                raise ValueError(f"{where}: @SET needs a name and a value, not {rest!r}")
            variables[name] = value.strip()
        elif tag == "@IF":
            if not _holds(rest, where):
                skipping = where
        elif tag == "@INCLUDE":
            name = _unquoted(rest, where)
            file = folder / name
            if file in above or file == path or len(above) > _DEEPEST:
                raise ValueError(f"{where}: {name} includes itself")
            if file.is_file():
                yield from _lines(file, variables, (*(above or (path,)), file))
            else:
                yield where, f"@INCLUDE the included file {name} is not in {folder}"
        elif tag in ("@XCTYPE", "@FFTYPE"):
            continue  # sections of functionals and force fields
    if skipping:
        raise ValueError(f"{skipping}: @IF has no @ENDIF in its file")


_DIRECTIVES = ("@SET", "@IF", "@ENDIF", "@INCLUDE", "@XCTYPE", "@FFTYPE", "@PRINT")


def _replaced(line: str, variables: dict[str, str], where: str) -> str:
    """A line with ${NAME}, ${NAME-default} and $NAME replaced; those that are not set stay."""

    def value(name: str, default: str | None) -> str | None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{where}: {name!r} is no name of a variable")
        return variables.get(name, default)

    at = 0
    while (at := line.find("$", at)) >= 0:
        if len(line) > _LONGEST:
            raise ValueError(f"{where}: variables make the line longer than {_LONGEST} letters")
        if line.startswith("${", at):
            end = line.find("}", at)
            if end < 0:
                raise ValueError(f"{where}: }} is missing behind {line[at:][:30]!r}")
            name, dash, default = line[at + 2 : end].partition("-")
            new, end = value(name, default if dash else None), end + 1
        else:
            end = at + 1
            while end < len(line) and not line[end].isspace():
                end += 1
            new = value(line[at + 1 : end], None)
        if new is None:
            at += 1  # perhaps set where CP2K was started; refused where it matters
        else:
            line = line[:at] + new + line[end:]
            if new.count("$"):
                raise ValueError(f"{where}: the value {new!r} holds another variable")
    return line


def _holds(condition: str, where: str) -> bool:
    """Whether a condition of @IF holds: texts that are equal or not, or any text but 0."""
    if "$" in condition:
        raise ValueError(f"{where}: @IF {condition}: the variable is not set")
    for sign in ("==", "/="):
        first, operator, second = condition.partition(sign)
        if not operator:
            continue
        if "==" in second or "/=" in second:
            raise ValueError(f"{where}: @IF {condition} compares more than two texts")
        first, second = first.partition("(")[2] if "(" in first else first, second.partition(")")[0]
        if not second.strip():
            raise ValueError(f"{where}: @IF {condition} compares with nothing")
        return (first.strip() == second.strip()) == (sign == "==")
    return condition.strip() not in ("", "0")


def _unquoted(text: str, where: str) -> str:
    for quote in "\"'":
        if quote in text:
            parts = text.split(quote)
            if len(parts) != 3:
                raise ValueError(f"{where}: {text} has quotes that do not match")
            return parts[1]
    if not text.strip():
        raise ValueError(f"{where}: the name of a file is missing")
    return text.strip()


# ----------------------------------------------------------------------------------- values


def words_of(keyword: Keyword) -> list[str]:
    """The words behind a keyword, which blanks or one of , : ; = separate; quotes are taken off."""
    if "$" in keyword.text:
        raise ValueError(f"{keyword.where}: {keyword.name} {keyword.text}: the variable is not set")
    words: list[str] = []
    for piece in re.findall(r'"[^"]*"|[^\s,:;="]+|[,:;="]', keyword.text):
        words.append(piece.strip('"') if len(piece) > 1 else piece)
    out: list[str] = []
    separated = True
    for word in words:
        if word == '"' or (word in _SEPARATORS and not separated):
            raise ValueError(f"{keyword.where}: {keyword.name} {keyword.text}: stray {word}")
        if word in _SEPARATORS:
            separated = False
        else:
            out.append(word)
            separated = True
    return out


def word_of(keyword: Keyword) -> str:
    """The one word behind a keyword, in capitals."""
    words = words_of(keyword)
    if len(words) != 1:
        raise ValueError(f"{keyword.where}: {keyword.name} needs one word, not {keyword.text!r}")
    return words[0].upper()


def number(text: str) -> float:
    """A number, or products and fractions of numbers, such as 15.652/2 or 0.78D+01."""
    value, sign = 1.0, "*"
    for piece in re.split(r"([*/])", text):
        if piece in ("*", "/"):
            sign = piece
            continue
        if not _FACTOR.fullmatch(piece):
            raise ValueError(f"{text!r} is no number, product or fraction of numbers")
        factor = float(re.sub("[dq]", "e", piece, flags=re.I))
        if sign == "/" and factor == 0:
            raise ValueError(f"{text!r} divides by zero")
        value = value * factor if sign == "*" else value / factor
    if not np.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value


def unit(text: str, dimension: str) -> float:
    """A unit such as bohr or hartree*bohr^-1, in Angstrom, eV, eV/Angstrom or degrees.

    Raises ValueError for one that is not known, or of another dimension.
    """
    if re.fullmatch(r"hartree(\*bohr\^-1|/bohr)", text.replace(" ", ""), re.I) and (
        dimension == "force"
    ):
        return HARTREE_PER_BOHR
    scale = 1.0
    powers = {"length": 0, "energy": 0, "force": 0, "angle": 0}
    sign = 1
    for piece in re.split(r"\s*([*/])\s*", text.strip()):
        if piece in ("*", "/"):
            sign = 1 if piece == "*" else -1
            continue
        match = re.fullmatch(r"([A-Za-z_]+)(?:\s*\^\s*([-+]?[1-9]))?", piece, re.ASCII)
        if match is None or match[1].upper() not in _UNITS:
            known = ", ".join(
                name.lower() for name, (kind, _) in _UNITS.items() if kind == dimension
            )
            raise ValueError(f"the unit {text!r} is not known (of {dimension}: {known})")
        kind, size = _UNITS[match[1].upper()]
        power = sign * int(match[2] or 1)
        scale *= size**power
        powers[kind] += power
    powers["energy"] += powers["force"]
    powers["length"] -= powers.pop("force")
    wanted = {"length": 0, "energy": 0, "angle": 0}
    wanted |= {"energy": 1, "length": -1} if dimension == "force" else {dimension: 1}
    if powers != wanted:
        raise ValueError(f"the unit {text!r} is none of {dimension}")
    return scale


def numbers_of(keyword: Keyword, count: int, dimension: str) -> np.ndarray:
    """Numbers [count] behind a keyword, Angstrom or degrees; a [unit] holds for all behind it."""
    scale, values, bracket = 1.0, [], False
    words = words_of(keyword)
    try:
        for word in words:
            bracket = word.startswith("[") and word.endswith("]")
            if bracket:
                scale = unit(word[1:-1], dimension)
            else:
                values.append(number(word) * scale)
        if len(values) != count or bracket:
            raise ValueError(f"{count} numbers are needed")
    except ValueError as error:
        raise ValueError(f"{quoted(keyword)}: {error}") from None
    return np.array(values)


def quoted(keyword: Keyword) -> str:
    """A keyword as it is written, with its place, as errors begin."""
    start = f"{keyword.where}: "
    return start + f"{keyword.name} {keyword.text}".strip()


def is_true(keyword: Keyword | None, default: bool) -> bool:
    """A logical value; alone a keyword is true."""
    if keyword is None:
        return default
    if not keyword.text:
        return True
    word = word_of(keyword).strip(".")
    if word in ("T", "TRUE", "Y", "YES", "ON", "1"):
        return True
    if word in ("F", "FALSE", "N", "NO", "OFF", "0"):
        return False
    raise ValueError(f"{quoted(keyword)} is no logical value")
