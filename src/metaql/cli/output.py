"""Where output goes: data to stdout, words to stderr, one JSON document with ``--json``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 120
"""Columns of a table written to a file or a pipe."""


class Output:
    """The two streams of one command.

    Args:
        as_json: print nothing to stdout but the document given to `document`.
        quiet: print no words (errors still appear).
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.words = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._data = Console(file=sys.stdout, width=width, highlight=False, markup=False)

    def say(self, text: str = "") -> None:
        """A line for the person watching (stderr)."""
        self.words.print(text, markup=False)

    def line(self, text: str) -> None:
        """A line of results (stdout); dropped with ``--json``."""
        if not self.as_json:
            write(text)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        title: str = "",
        left: Sequence[int] = (),
    ) -> None:
        """A table of results (stdout); dropped with ``--json``.

        Args:
            columns: their heads.
            rows: cells as text.
            title: a line above.
            left: columns of words, beside the first; all others are numbers, whose intervals go
                below them where the line is too short.
        """
        if self.as_json:
            return
        if _width(columns, rows) > self._data.width:
            rows = [[cell.replace(" [", "\n[") for cell in row] for row in rows]
        table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
        for index, name in enumerate(columns):
            numbers = index > 0 and index not in left
            table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers)
        for row in rows:
            table.add_row(*row)
        self._data.print(table)

    def document(self, content: Mapping[str, Any]) -> None:
        """The one JSON document (stdout); nothing without ``--json``."""
        if self.as_json:
            write(json.dumps(plain(content), indent=2, allow_nan=False))


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Characters of a table's widest line, gaps included."""
    cells = zip(columns, *rows, strict=True)
    return sum(max(map(len, column)) + 2 for column in cells)


def write(text: str, *, to_stderr: bool = False) -> None:
    """Write one line at once, to stdout unless told otherwise."""
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(text + "\n")
    stream.flush()


def plain(value: Any) -> Any:
    """Arrays, tuples, paths and numbers as JSON knows them; NaN and infinities become null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def number(value: float) -> str:
    """A return as people write it: whole numbers bare, others to four digits."""
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"
