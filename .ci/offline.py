"""Check that built pages load nothing from the net: ``python .ci/offline.py site``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

# What a browser fetches by itself; a link that a reader may follow (<a href>) is not meant.
LOADS = re.compile(
    r"<(?:script|img|iframe|source|link(?=[^>]*rel=[\"']?(?:stylesheet|preload|icon|preconnect)))"
    r"[^>]*?(?:src|href)=[\"']?(https?:)?//[^\"' >]+",
    re.IGNORECASE,
)


def loads(page: str) -> list[str]:
    """Tags of an HTML page that make a browser fetch from another host."""
    return [match.group(0) for match in LOADS.finditer(page)]


def main(site: Path) -> int:
    """Print every such tag of every page below ``site``; 1 if there is one or no page at all."""
    pages = sorted(site.rglob("*.html"))
    found = [f"{page}: {tag}" for page in pages for tag in loads(page.read_text(encoding="utf-8"))]
    print("\n".join(found) or f"{len(pages)} pages, nothing loaded from the net.")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
