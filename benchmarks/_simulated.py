"""What the benchmarks on simulators share: returns in held-out tasks."""

from __future__ import annotations

import numpy as np

import metaql
from metaql.meta.host_lives import live_in_simulators
from metaql.meta.recurrent_agent import RecurrentAgent


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
