"""Write ``constraints.txt``: one version per package, so that a fresh install is repeatable.

    python3 .ci/lock.py python3.11 python3.13

The first interpreter resolves for Python 3.11 (JAX ends at 0.10.1 there), the second for 3.12 and
later. Where the two answers differ, both lines are written with a marker.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPLIT = "3.12"
"""First Python version of the second column."""
HEADER = """\
# Versions that were tested together: pip install -c constraints.txt .
# Written by .ci/lock.py (CONTRIBUTING.md says when to run it); not meant to be edited.
"""


def resolve(interpreter: str) -> dict[str, str]:
    """Versions pip chooses for metaql with all extras, by package name, under ``interpreter``."""
    command = [interpreter, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--report", "-", f"{ROOT}[dev,docs]"]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = [entry["metadata"] for entry in json.loads(report)["install"]]
    versions = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in found}
    del versions["metaql"]
    return versions


def lines(older: dict[str, str], newer: dict[str, str]) -> list[str]:
    """Merge the two columns, one line per package and one per column where they differ."""
    merged: list[str] = []
    for name in sorted(older.keys() | newer.keys()):
        old, new = older.get(name), newer.get(name)
        if old is None or new is None or old == new:
            merged.append(f"{name}=={old or new}")
        else:
            merged.append(f'{name}=={old} ; python_version < "{SPLIT}"')
            merged.append(f'{name}=={new} ; python_version >= "{SPLIT}"')
    return merged


def main(interpreters: list[str]) -> None:
    """Resolve for both interpreters and write the file."""
    if len(interpreters) != 2:
        raise SystemExit(__doc__)
    older, newer = (resolve(interpreter) for interpreter in interpreters)
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines(older, newer)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
