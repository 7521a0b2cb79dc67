"""``python -m metaql`` is ``metaql``."""

from __future__ import annotations

from metaql.cli.main import run

if __name__ == "__main__":
    run()
