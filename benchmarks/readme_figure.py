"""The README's figure: the first one of a run's report, as a file of its own on white.

python benchmarks/readme_figure.py runs/frozen_lake/<run>
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "docs" / "assets" / "frozen_lake.svg"
_NAMESPACES = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_TEXT = "#1a1a1a"


def main() -> None:
    """Cut out, colour, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder with a report.html")
    report = (parser.parse_args().run / "report.html").read_text()
    found = re.search(r"<svg(.*?)>(.*?)</svg>", report, re.DOTALL)
    if found is None:
        raise SystemExit("The report holds no figure.")
    head, body = found.groups()
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)[0]
    paper = f'<rect x="0" y="0" width="{width}" height="{height}" fill="#ffffff"/>'
    text = f"{_NAMESPACES}{head}>{paper}{body}</svg>\n"
    FIGURE.write_text(text.replace("currentColor", _TEXT).replace("currentcolor", _TEXT))


if __name__ == "__main__":
    main()
