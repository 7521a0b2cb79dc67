"""``python -m metaql`` is ``metaql``."""

from __future__ import annotations

import sys

from metaql.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
