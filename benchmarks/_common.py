"""What the benchmarks share: one JSON document out, the machine in words, baselines with priors."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metaql.evaluation.blocks import BLOCKS, Block, block_name, block_table
from metaql.qlearning import PSRL
from metaql.tasks.families.frozen_lake import FrozenLake


def say(words: str) -> None:
    """Progress, to stderr."""
    print(words, file=sys.stderr, flush=True)


def telling() -> Callable[[str, float, Any], None]:
    """Says at every tenth of a training what a step earns, and what the rest of a lifetime (discounted)."""
    shown = [0.0]

    def tell(stage: str, done: float, figures: Any) -> None:
        del stage
        if done - shown[0] >= 0.1:
            shown[0] = done
            reward, value = (figures.get(name, 0.0) for name in ("reward", "value"))
            say(f"{done:.1f}: {reward:.4f} a step, value {value:.2f}")

    return tell


def emit(name: str, **content: Any) -> None:
    """The one JSON document of a benchmark, with what it ran on, to stdout."""
    machine = {
        "cpus": os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
    print(json.dumps({"benchmark": name, **content, "machine": machine}, indent=1))


def blocks(
    returns: Mapping[str, np.ndarray], digits: int = 4, parts: tuple[Block, ...] = BLOCKS
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Mean return by learner and block of episodes, with 95% intervals over lifetimes."""
    names = [block_name(part) for part in parts]
    found = {}
    for row in block_table(returns, blocks=parts):
        cells = [
            {key: None if value is None else round(value, digits) for key, value in each.items()}
            for each in map(asdict, row.cells)
        ]
        found[row.name] = dict(zip(names, cells, strict=False))
    return found


def uninformed(transition_prior: float, reward_mean: float, reward_count: float) -> PSRL:
    """Posterior sampling with the same prior for every pair and every next state."""
    return PSRL(
        transition_prior=transition_prior,
        ending_prior=transition_prior,
        reward_model="beta",
        reward_mean=reward_mean,
        reward_count=reward_count,
    )


def informed(family: FrozenLake) -> PSRL:
    """Posterior sampling that knows how ice slips and where the goal is, but not where holes are.

    Each cell but start and goal is a hole with probability about 0.2, and one visit settles it.
    """
    certain, tiny = 1e5, 0.02
    cells = family.size**2
    ice = family.from_holes(jnp.zeros(cells, bool))
    ends = jnp.full(cells, 0.2).at[0].set(0.0).at[-1].set(1.0)
    weight = jnp.full(cells, tiny).at[0].set(certain).at[-1].set(certain)
    return PSRL(
        horizon=family.horizon,
        transition_prior=certain * ice.transition,
        termination_prior=weight[:, None] * jnp.stack([ends, 1.0 - ends], -1),
        reward_mean=(ice.transition * ice.reward).sum(-1),
        reward_count=certain,
        reward_std=0.0,
    )
