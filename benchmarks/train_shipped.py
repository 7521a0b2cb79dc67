"""Train the agents of families that are shipped inside the package, from a seed, with their cards.

    python benchmarks/train_shipped.py frozen_lake

Two CPU cores are enough: minutes. Held-out tasks are never touched here. The agent for any finite task
has a recipe of its own, ``train_finite.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import metaql
from metaql.tasks.families import FrozenLake
from metaql.tasks.families.base import Family

WEIGHTS = Path(metaql.__file__).parent / "weights"
SEED = 0


def frozen_lake() -> tuple[Family, int]:
    """Random 4x4 lakes, the family of the quickstart."""
    return FrozenLake(4), 3_000_000


RECIPES = {"frozen_lake": frozen_lake}


def main() -> None:
    """Train one agent and save it into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--env-steps", type=int, help="default: the recipe's")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    family, env_steps = RECIPES[options.name]()
    started, said = time.monotonic(), [0.0]

    def report(stage: str, done: float, figures: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if done >= 1.0 or now - said[0] > 10.0:
            said[0] = now
            text = " ".join(f"{k}={v:.4g}" for k, v in figures.items())
            print(f"{now - started:6.0f} s  {stage} {done:4.0%}  {text}", file=sys.stderr)

    agent = metaql.meta_train(
        family, env_steps=options.env_steps or env_steps, seed=SEED, on_progress=report
    )
    agent.save(options.out / options.name)


if __name__ == "__main__":
    main()
