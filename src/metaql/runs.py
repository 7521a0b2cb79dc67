"""Run folders: ``runs/<family>/<time>-s<seed>/`` with ``config.json`` and ``metrics.jsonl``."""

from __future__ import annotations

import datetime
import itertools
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from metaql.errors import UsageError
from metaql.files import readable, to_json, write_file

CONFIG = "config.json"
METRICS = "metrics.jsonl"


class Run(NamedTuple):
    """A run folder and what was written into its ``config.json``."""

    path: Path
    config: dict[str, Any]


def create_run(root: str | os.PathLike[str], family_name: str, seed: int) -> Path:
    """Make a new, empty run folder ``root/<family>/<UTC time>-s<seed>`` (``+2`` if taken).

    Raises:
        UsageError: the folder cannot be made.
    """
    family = Path(root).expanduser() / _folder_name(family_name)
    now = datetime.datetime.now(datetime.UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}-s{seed}"
    try:
        family.mkdir(parents=True, exist_ok=True)
        return _make_new(family, name)
    except OSError as error:
        raise _unusable("The runs folder must be writable.", family, error) from error


def _folder_name(family_name: str) -> str:
    """A family may have any name; a folder may not leave ``root`` or be hidden."""
    return re.sub(r"[^\w.-]+", "-", family_name).strip(".-") or "family"


def _make_new(folder: Path, name: str) -> Path:
    """Make ``name`` in ``folder``: two runs started in the same second get two folders."""
    for count in itertools.count(2):
        try:
            (folder / name).mkdir()
            break
        except FileExistsError:
            name = f"{name.rpartition('+')[0] or name}+{count}"
    return folder / name


def _unusable(rule: str, path: Path, error: OSError) -> UsageError:
    reason = error.strerror or type(error).__name__
    return UsageError(rule, f"{path}: {reason}.", "Check the path and its permissions.")


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` atomically; only then does the folder count as a run.

    Raises:
        UsageError: it cannot be written or has no JSON form.
    """
    try:
        write_file(run / CONFIG, (to_json(dict(config), indent=2) + "\n").encode())
    except OSError as error:
        raise _unusable("The run folder must be writable.", run, error) from error
    except TypeError as error:
        raise UsageError("A configuration must have a JSON form.", f"{error}.") from error


def open_run(path: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        UsageError: it is missing, is no folder, or holds no readable ``config.json``.
    """
    run = Path(path).expanduser()
    try:
        config = json.loads((run / CONFIG).read_bytes())
    except FileNotFoundError as error:
        found = f"has no {CONFIG}" if run.is_dir() else "does not exist"
        remedy = (
            "A run made in Python goes on there, by metaql.meta_train(family, run=..., resume=True), and is "
            "evaluated there: metaql.evaluate(metaql.load(run), family)."
        )
        raise UsageError(
            f"A run is a folder with a {CONFIG}, as `metaql train` makes it.",
            f"{run} {found}.",
            remedy if run.is_dir() else "Check the path.",
        ) from error
    except OSError as error:
        raise _unusable(f"A run is a folder with a {CONFIG}.", run, error) from error
    except ValueError as error:
        raise UsageError(f"{CONFIG} must be JSON.", f"{run / CONFIG}: {error}.") from error
    if not isinstance(config, dict):
        raise UsageError(f"{CONFIG} must be an object.", f"{run / CONFIG} is not.")
    return Run(run, config)


def latest_run(
    root: str | os.PathLike[str], family: str | None = None, *, holding: str = CONFIG
) -> Path:
    """The newest run below ``root``, of one family or of any.

    Args:
        root: where runs are.
        family: of the runs.
        holding: name of a file or folder that the run must have too.

    Raises:
        UsageError: there is none.
    """
    base = Path(root).expanduser()
    pattern = f"{_folder_name(family) if family else '*'}/*/{CONFIG}"
    runs = [path.parent for path in base.glob(pattern)]
    found = [run for run in runs if readable(run / holding).exists()]
    if not found:
        without = f" without `{holding}`" if runs else ""
        raise UsageError(
            f"There must be a run{f' of {family}' if family else ''} below {base}.",
            f"Found {len(runs) or 'none'}{without}.",
            "Train first (metaql train), or give another folder.",
        )
    return max(found, key=_age)


def _age(run: Path) -> tuple[str, int, str]:
    """Sorts runs by start time; within one second by count, then by name."""
    stamp, _, count = run.name.partition("+")
    return stamp.partition("-")[0], int(count) if count.isdigit() else 0, run.name


class MetricsWriter:
    """Appends rows to ``metrics.jsonl``, one JSON object per line, each flushed as it is written.

    To resume without duplicates: `sync`, then write the checkpoint; pass the number of rows as ``keep``.
    """

    def __init__(self, run: Path, *, keep: int = 0) -> None:
        """Open the file and drop every row after the first ``keep``.

        Raises:
            UsageError: the file cannot be written.
        """
        path = run / METRICS
        try:
            self._file = path.open("ab+")
            self.rows = self._truncate(keep)
        except OSError as error:
            raise _unusable("The run folder must be writable.", path, error) from error

    def _truncate(self, keep: int) -> int:
        self._file.seek(0)
        lines = [line for line in itertools.islice(self._file, keep) if line.endswith(b"\n")]
        if len(lines) < keep:
            text = f"{self._file.name} has {len(lines)} of {keep} rows: the rest was lost."
            warnings.warn(text, stacklevel=3)
        self._file.truncate(sum(map(len, lines)))
        return len(lines)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row; NaN and infinities, which JSON does not have, become null."""
        self._file.write(json.dumps(finite(json.loads(to_json(dict(row))))).encode() + b"\n")
        self._file.flush()
        self.rows += 1

    def sync(self) -> None:
        """Force the rows to disk: no checkpoint may count one that is lost with the power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All complete rows, ``[]`` if there are none; a last line torn by a kill is left out."""
    path = run / METRICS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def finite(value: Any) -> Any:
    """A JSON value with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
