"""What the benchmarks on simulators share: progress, and returns in held-out tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from _common import say

import metaql
from metaql.meta.host_lives import live_in_simulators
from metaql.meta.recurrent_agent import RecurrentAgent


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


def returns(
    agent: RecurrentAgent, family: metaql.SimulatorFamily, episodes: int, steps: int
) -> dict[str, list[float]]:
    """Mean return of every episode over all held-out tasks, one lifetime each, and half its 95% interval."""
    count = len(family.tasks["test"])
    crowds = family.crowds("test", [range(count)])
    budget = np.full(count, episodes, np.int32)
    lived = live_in_simulators(
        agent.learner, crowds, (budget,), 1, length=episodes * steps, every=steps
    )
    found = lived.lifetimes.returns(episodes)
    half = 1.96 * found.std(0, ddof=1) / len(found) ** 0.5
    rows = {"mean": found.mean(0), "half interval": half}
    return {name: [round(float(value), 2) for value in row] for name, row in rows.items()}
