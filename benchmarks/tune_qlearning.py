"""Tune optimistic Q-learning on validation lakes, then report every baseline on FrozenLake-v1.

Chooses on `FrozenLake().tasks(key, n, "validation")` only: success in episodes 6-20 plus success in
episodes 11-50. The default map is used for the report, not for the choice. JSON to stdout.

    python benchmarks/tune_qlearning.py tune --tasks 128
    python benchmarks/tune_qlearning.py report --runs 200
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time

import jax
import numpy as np
from _common import informed, uninformed

from metaql.meta.lifetime import live
from metaql.qlearning import UCBVI, Constant, Harmonic, QLearning, tuned_optimistic
from metaql.tasks.families.frozen_lake import FrozenLake
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner

EPISODES = 50
BLOCKS = {"1-2": (0, 2), "3-5": (2, 5), "6-10": (5, 10), "11-20": (10, 20), "41-50": (40, 50)}
STEP_SIZES = {
    "constant 0.2": Constant(0.2),
    "constant 0.4": Constant(0.4),
    "(H+1)/(H+n), H=3": Harmonic(3.0),
    "(H+1)/(H+n), H=10": Harmonic(10.0),
    "(H+1)/(H+n), H=20": Harmonic(20.0),
    "(H+1)/(H+n), H=40": Harmonic(40.0),
}
GRID = {
    "gamma": (0.9, 0.95, 0.98, 0.99),
    "initial_value": (0.1, 0.2, 0.3, 0.5, 1.0),
    "epsilon": (0.0, 0.05),
}
UCBVI_SCALES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 7.0)
PSRL_PRIORS = {
    "transition_prior": (1 / 16, 1 / 4),
    "reward_mean": (0.1, 0.5),
    "reward_count": (0.2, 1.0),
}


def scores(returns: np.ndarray) -> dict[str, float]:
    """What is tuned for: success in episodes 6-20 and 11-50, and their sum."""
    early, late = float(returns[:, 5:20].mean()), float(returns[:, 10:50].mean())
    return {"6-20": early, "11-50": late, "sum": early + late}


def run(learner: Learner, tasks: FiniteTask, runs: int, seed: int) -> np.ndarray:
    """Returns ``[N, E]`` of ``runs`` lifetimes."""
    return live(
        learner, tasks, jax.random.split(jax.random.key(seed), runs), episodes=EPISODES
    ).returns


def tune(num_tasks: int, seed: int) -> dict[str, object]:
    """Try the grid, each setting on the same validation lakes."""
    lakes = FrozenLake().tasks(jax.random.key(seed), num_tasks, "validation")
    rows = []
    for (name, step_size), values in itertools.product(
        STEP_SIZES.items(), itertools.product(*GRID.values())
    ):
        setting = dict(zip(GRID, values, strict=True))
        learner = QLearning(
            **{**setting, "epsilon": Constant(setting["epsilon"])}, step_size=step_size
        )
        found = scores(run(learner, lakes, num_tasks, seed))
        rows.append({"step_size": name, **setting, **found})
    rows.sort(key=lambda row: -row["sum"])
    for row in rows[:10]:
        print(row, file=sys.stderr)
    bonuses = []
    for scale in UCBVI_SCALES:
        learner = UCBVI(bonus_scale=scale, max_return=1.0)
        bonuses.append({"bonus_scale": scale, **scores(run(learner, lakes, num_tasks, seed))})
        print(bonuses[-1], file=sys.stderr)
    return {"q_learning": rows, "ucbvi": bonuses, "psrl": tune_psrl(lakes, num_tasks, seed)}


def tune_psrl(lakes: FiniteTask, num_tasks: int, seed: int) -> list[dict[str, float]]:
    """Try priors of uninformed posterior sampling."""
    priors = []
    for values in itertools.product(*PSRL_PRIORS.values()):
        prior = dict(zip(PSRL_PRIORS, values, strict=True))
        found = scores(run(uninformed(**prior), lakes, num_tasks, seed))
        priors.append({**prior, **found})
        print(priors[-1], file=sys.stderr)
    return priors


def baselines() -> dict[str, Learner]:
    """Every from-scratch learner of the report."""
    family = FrozenLake()
    return {
        "Q-learning, zero start": QLearning(),
        "Q-learning, optimistic, tuned": tuned_optimistic(),
        "UCBVI": UCBVI(bonus_scale=1e-4, max_return=1.0),
        "PSRL, uninformed": uninformed(1 / 16, 0.1, 0.2),
        "PSRL, informed": informed(family),
    }


def report(runs: int, seed: int) -> dict[str, object]:
    """Success on FrozenLake-v1's own map, per block of episodes, with standard errors."""
    task = FrozenLake().default()
    table = {}
    for name, learner in baselines().items():
        start = time.perf_counter()
        returns = run(learner, task, runs, seed)
        seconds = time.perf_counter() - start
        blocks = {block: returns[:, a:b].mean(1) for block, (a, b) in BLOCKS.items()}
        table[name] = {
            block: [round(float(x.mean()), 3), round(float(x.std() / runs**0.5), 3)]
            for block, x in blocks.items()
        }
        print(f"{name}: {table[name]} ({seconds:.1f} s)", file=sys.stderr)
    return {"runs": runs, "mean_and_standard_error": table}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("tune", "report"))
    parser.add_argument("--tasks", type=int, default=256)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what == "tune":
        found = tune(options.tasks, options.seed)
    else:
        found = report(options.runs, options.seed)
    print(json.dumps(found, indent=2))
