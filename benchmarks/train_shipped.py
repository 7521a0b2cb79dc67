"""Train the agents that are shipped inside the package, from a seed, and write their model cards.

    python benchmarks/train_shipped.py frozen_lake
    python benchmarks/train_shipped.py universal

Two CPU cores are enough: minutes for either. Held-out tasks are never touched here.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import metaql
from metaql.tasks.families import Bandit, Chain, FrozenLake, Mixture, Navigation, RandomMDP
from metaql.tasks.families.base import Family

WEIGHTS = Path(metaql.__file__).parent / "weights"
SEED = 0


def frozen_lake() -> tuple[Family, int]:
    """Random 4x4 lakes, the family of the quickstart."""
    return FrozenLake(4), 3_000_000


def universal() -> tuple[Family, int]:
    """Lakes with their prior, and grids, dense and sparse MDPs, chains and bandits without one."""
    parts = [
        (FrozenLake(4), 1.0),
        (Navigation(), 2.0),
        (RandomMDP(), 1.0),
        (RandomMDP(kind="sparse"), 1.0),
        (Chain(), 1.0),
        (Bandit(), 0.5),
    ]
    return Mixture(parts), 5_000_000


RECIPES = {"frozen_lake": frozen_lake, "universal": universal}


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
