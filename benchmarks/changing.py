"""A goal that moves at a time nobody tells: what RecurrentQ earns before and after.

Protocol, fixed beforehand: GridNavi (VariBAD, arXiv 1910.08348), its 21 goals, 8 episodes of 15 steps; at a
random step of episode 3, 4 or 5 another goal takes over. 1024 lifetimes. The figures are mean returns by
episodes since the change: -1 is the last whole episode with the first goal, 0 the one in which it changes,
2 the second whole episode with the other goal, and their ratio.

    python benchmarks/changing.py
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np
from _common import emit, say

import metaql
from metaql.evaluation.intervals import mean_interval
from metaql.meta.lifetime import live
from metaql.tasks.families import Changing, GridNavi

EPISODES, TASKS, AROUND = 8, 1024, (-1, 0, 1, 2)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, help="meta-trainings")
    parser.add_argument("--env-steps", type=int, default=12_000_000)
    options = parser.parse_args()
    family = Changing(GridNavi(shared=True), earliest=2, latest=4)
    rows, seconds = [], []
    for seed in range(options.seeds):
        start = time.perf_counter()
        agent = metaql.meta_train(
            family,
            agent="recurrent",
            seed=seed,
            env_steps=options.env_steps,
            segment_steps=120,
            episodes=(EPISODES, EPISODES),
        )
        seconds.append(round(time.perf_counter() - start, 1))
        tasks = family.tasks(jax.random.key(1_000), TASKS, "test")
        keys = jax.random.split(jax.random.key(seed), TASKS)
        returns = live(agent.learner, tasks, keys, episodes=EPISODES).returns
        at = np.asarray(tasks.episode)
        rows.append([returns[np.arange(TASKS), at + apart] for apart in AROUND])
        means = [round(float(row.mean()), 2) for row in rows[-1]]
        say(f"seed {seed}: {means}, by episode {returns.mean(0).round(2)}, {seconds[-1]} s")
        jax.clear_caches()  # every program holds mappings of memory, and a process may have so many
    whole = np.concatenate(rows, axis=1)
    by = {
        str(apart): mean_interval(row)._asdict() for apart, row in zip(AROUND, whole, strict=True)
    }
    recovered = round(float(whole[-1].mean() / whole[0].mean()), 3)
    emit("changing", seeds=options.seeds, seconds=seconds, since_change=by, recovered=recovered)


if __name__ == "__main__":
    main()
