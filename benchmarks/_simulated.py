"""What the benchmarks on simulators share: returns in held-out tasks."""

from __future__ import annotations

from typing import Any

import metaql
from metaql.meta.recurrent_agent import RecurrentAgent


def returns(agent: RecurrentAgent, family: metaql.SimulatorFamily, episodes: int) -> dict[str, Any]:
    """Mean return of every episode over all held-out tasks, and half its 95% interval, by learner.

    One lifetime in each task.
    """
    count = len(family.tasks["test"])
    found = metaql.evaluate(agent, family, lifetimes=count, episodes=episodes, seed=1).returns
    rows = {name: row.astype(float) for name, row in found.items()}
    return {
        name: {
            "mean": row.mean(0).round(2).tolist(),
            "half interval": (1.96 * row.std(0, ddof=1) / count**0.5).round(2).tolist(),
        }
        for name, row in rows.items()
    }
