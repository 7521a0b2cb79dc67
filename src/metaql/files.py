"""Files and folders that are there completely or not at all, and JSON for what NumPy holds.

Everything is written under another name in the same folder, synced to disk and renamed. POSIX
``rename`` is atomic, and durable once the parent folder is synced. One writer at a time per target.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text; NumPy and JAX numbers and arrays become plain ones, paths become strings.

    Raises:
        TypeError: something in it has no JSON form.
    """
    return json.dumps(value, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r:.60}")


def write_file(path: Path, data: bytes) -> None:
    """Write one file atomically and durably, replacing an older one.

    Raises:
        OSError: it cannot be written; an older one is still there.
    """
    temporary = _beside(path)
    try:
        _write_synced(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files atomically and durably, replacing an older one, leftovers included.

    While an older folder is swapped for the new one there is an instant at which only
    ``.name.previous`` exists: `readable` finds it, `recover` puts it back.

    Raises:
        OSError: it cannot be written; an older one is still there (see `readable`).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    try:
        temporary.mkdir()
        for name, data in files.items():
            _write_synced(temporary / name, data)
        sync_folder(temporary)
        _swap(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(target.parent)
    remove_leftovers(target.parent, re.escape(target.name))


def _swap(new: Path, target: Path) -> None:
    recover(target)
    if target.exists():
        shutil.rmtree(_previous(target), ignore_errors=True)
        os.rename(target, _previous(target))
    os.rename(new, target)


def readable(target: Path) -> Path:
    """Where to read ``target``: its predecessor if a writer was killed between the two renames."""
    return _previous(target) if _is_stranded(target) else target


def recover(target: Path) -> None:
    """Give a predecessor stranded by a killed writer its name back."""
    if _is_stranded(target):
        os.rename(_previous(target), target)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove from ``folder`` what killed writers of targets named ``pattern`` (regex) left."""
    for path in folder.iterdir():
        left = re.fullmatch(rf"\.({pattern})\.(previous|tmp-[0-9a-f]{{8}})", path.name)
        stranded = left and left[2] == "previous" and not (folder / left[1]).exists()
        if left and not stranded:
            shutil.rmtree(path, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder; under another name first, so that it is never seen half gone."""
    doomed = _beside(folder)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable (Windows has no such call and needs none)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _is_stranded(target: Path) -> bool:
    # os.path answers False where the parent may not be looked into; Path would raise.
    return os.path.isdir(_previous(target)) and not os.path.exists(target)


def _beside(target: Path) -> Path:
    """A name in the same folder for the unfinished: a rename must not cross file systems."""
    return target.with_name(f".{target.name}.tmp-{secrets.token_hex(4)}")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
