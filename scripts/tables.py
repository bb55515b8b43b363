"""Tables that fit the terminal they are printed on; into a file or a pipe they go whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_table(
    console: Console,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    emphasized: str = "",
) -> None:
    """Print rows of cells under `head`; where they are too wide, in several tables one by one.

    The first column heads each of them. Rows whose first cell is `emphasized` are set in bold.
    """
    _line(console, title)
    for columns in _blocks(console, head, rows):
        table = _table(head, rows, columns, emphasized)
        if not console.is_terminal:
            console.width = max(console.width, _width(console, table))
        console.print(table)
    if caption:
        console.print(caption, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def with_error(mean: float, se: float) -> str:
    """A mean and its standard error, to the error's first digit, or its second if that is 1.

    Such as 0.475±0.002; ±– where the error is not known.
    """
    if not math.isfinite(mean):
        return number(mean)
    if not math.isfinite(se):
        return f"{number(mean)}±–"
    if se == 0:
        return f"{number(mean)}±0"
    places = -math.floor(math.log10(se))
    leading = round(se * 10.0**places, 6)
    places += leading < 1.95 or leading > 9.5
    if places <= 0:
        return f"{mean:,.0f}±{se:,.0f}"
    if places <= 6:
        return f"{mean:.{places}f}±{se:.{places}f}"
    power = math.floor(math.log10(max(abs(mean), se)))
    digits = places + power
    if digits > 6:  # an error beyond the digits that anybody reads
        return f"{number(mean, 6)}±{_plain(f'{se:.0e}')}"
    scale = 10.0**power
    return f"({mean / scale:.{digits}f}±{se / scale:.{digits}f})e{power}"


def plus_minus(value: float, error: float | None, digits: int) -> str:
    """A value and its error, if that is known, to so many digits behind the point."""
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def number(value: float, digits: int = 4) -> str:
    """A number to so many digits, or a dash for one that is not defined."""
    if math.isnan(value):
        return "–"
    shown = f"{value:,.0f}" if 10**digits <= abs(value) < 1e15 else f"{value:.{digits}g}"
    return _plain(shown)


def _plain(text: str) -> str:
    """1e-09 as 1e-9."""
    return text.replace("e-0", "e-").replace("e+0", "e+")


def _line(console: Console, text: str) -> None:
    console.print(text, style="bold", highlight=False, markup=False, soft_wrap=True)


def _blocks(
    console: Console, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[list[int]]:
    """The columns of each of the tables, by number, without the first."""
    if not console.is_terminal:
        return [list(range(1, len(head)))]
    blocks: list[list[int]] = []
    for column in range(1, len(head)):
        wider = [*blocks[-1], column] if blocks else []
        if wider and _width(console, _table(head, rows, wider, "")) <= console.width:
            blocks[-1] = wider
        else:
            blocks.append([column])
    return blocks


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int], emphasized: str
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False)
    table.add_column(Text(head[0]), overflow="fold")
    for column in columns:
        table.add_column(Text(head[column]), justify="right", overflow="fold")
    for row in rows:
        cells = [Text(row[column]) for column in (0, *columns)]
        table.add_row(*cells, style="bold" if row[0] == emphasized else "")
    return table


def _width(console: Console, table: Table) -> int:
    """Columns that a table takes where there is room."""
    options = console.options.update(max_width=10_000, width=10_000)
    return console.measure(table, options=options).maximum
