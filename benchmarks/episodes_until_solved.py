"""Episodes until a task is solved (T3; the protocol of arXiv 2606.18812).

Protocol, fixed beforehand:

- Tasks: deterministic grids 3x3 and 5x5 from corner to corner (step -1, the step into the goal +10
  instead) and Gymnasium's 4x4 lake with 0.1 to slip to either side (hole -1, goal +1). Episodes of 50
  steps.
- After each episode the greedy policy of what the learner *believes* (``Decision.estimate`` in every
  state, the first of equals) is evaluated exactly: ``(v - random) / (optimum - random)`` of expected
  undiscounted returns of one episode. UCBVI and PSRL plan for the steps left, so their greedy policy
  follows the clock; that of every other learner is stationary. (The best stationary policy of the lake
  has at least 0.986; one that stalls for time there falls below the bar.)
- Solved at: the first of 8 consecutive episodes whose policies have at least 0.95; 1 is the policy
  after one episode. Median of 12 seeds; the cap of 1,500 where it has not happened until then. The
  interval is that of the median's order statistics (96% for 12).
- Every learner lives in the lifetime loop and is told that the lifetime has ``--told`` episodes
  (default: the cap).

Baselines are those of `metaql.evaluation.compare`: UCBVI with a tuned bonus, PSRL with a sparse prior
(Dirichlet 1/S), Q-learning. The figures that issue 3 measured stand beside them.

    python benchmarks/episodes_until_solved.py --agent finite
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _common import emit, say
from _tasks import levels, slippery_lake, walled_grid
from jaxtyping import Array, Float
from scipy import stats

import metaql
from metaql.evaluation.compare import baselines
from metaql.meta.lifetime import begin_all, live_until
from metaql.tasks.exact import backup, greedy_policy, model_of, policy_return
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner, Memory

CAP, STREAK, BAR = 1500, 8, 0.95
TASKS = {
    "grid 3x3": walled_grid(3),
    "grid 5x5": walled_grid(5),
    "lake 4x4, slip 0.2": slippery_lake(),
}
ISSUE_3 = {
    "UCBVI": (16.0, 53.0, 46.0),
    "Q-learning": (469.5, 1205.5, 1014.0),
    "PSRL": (10.5, 39.5, 46.5),
    "bar": (8.0, 26.0, 23.0),
}
"""Medians, in the order of `TASKS`."""


@eqx.filter_jit
def greedy_values(learner: Learner, task: FiniteTask, memories: Memory) -> Float[Array, " N"]:
    """Exact return of the policy that is greedy on what each memory believes."""
    states, key = jnp.arange(task.initial.shape[0]), jax.random.key(0)

    def policy(memory: Memory) -> Float[Array, "S A"]:
        decisions = jax.vmap(lambda state: learner.act(key, memory, state))(states)
        return greedy_policy(decisions.estimate, task.action_mask)

    def by_the_clock(memory: Memory) -> Float[Array, ""]:
        """One policy for each step of the episode, the last step first."""
        model = model_of(task)

        def sweep(left: Array, values: Array) -> Array:
            clock = memory.clock._replace(step=task.horizon - 1 - left)
            return (policy(memory._replace(clock=clock)) * backup(model, values, 1.0)).sum(-1)

        values = jax.lax.fori_loop(0, task.horizon, sweep, jnp.zeros(states.shape))
        return task.initial @ values

    if getattr(learner, "plans_between_episodes", False):
        return jax.vmap(by_the_clock)(memories)
    return jax.vmap(lambda memory: policy_return(task, policy(memory)))(memories)


def solved_at(
    learner: Learner, task: FiniteTask, keys: jax.Array, told: int, cap: int
) -> np.ndarray:
    """Episodes until solved, ``[N]``; ``cap`` where it never was."""
    random, optimum = (float(level) for level in levels(task))
    lives = begin_all(learner, task, keys, told)
    streak = np.zeros(len(keys), int)
    solved = np.full(len(keys), cap)
    for episode in range(1, cap + STREAK):
        lives = live_until(learner, task, lives, episode)
        value = np.asarray(greedy_values(learner, task, lives.memory), np.float64)
        good = (value - random) / (optimum - random) >= BAR
        streak = np.where(good, streak + 1, 0)
        new = (streak == STREAK) & (solved == cap)
        solved[new] = episode - STREAK + 1
        if (solved < cap).all():
            break
    return solved


def median_interval(values: np.ndarray) -> list[float]:
    """Order statistics that hold the median with at least 95%."""
    ordered, count = np.sort(values), len(values)
    below = int(stats.binom.ppf(0.025, count, 0.5)) - 1
    low = max(below, 0)
    return [float(ordered[low]), float(ordered[count - 1 - low])]


def measure(learner: Learner, task: FiniteTask, options: argparse.Namespace) -> dict[str, Any]:
    """One cell of the table."""
    keys = jax.random.split(jax.random.key(options.seed), options.seeds)
    start = time.perf_counter()
    solved = solved_at(learner, task, keys, options.told, options.cap)
    return {
        "median": float(np.median(solved)),
        "interval": median_interval(solved),
        "solved": int((solved < options.cap).sum()),
        "each": np.sort(solved).tolist(),
        "seconds_with_compilation": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", action="append", default=[], help="folder or name (repeatable)")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cap", type=int, default=CAP)
    parser.add_argument("--told", type=int, default=CAP, help="episodes that learners are told of")
    parser.add_argument("--only", default="", help="tasks with this in their name")
    parser.add_argument("--no-baselines", action="store_true")
    options = parser.parse_args()
    agents = {name: metaql.load(name) for name in options.agent}
    found: dict[str, Any] = {}
    for index, (name, task) in enumerate(TASKS.items()):
        if options.only not in name:
            continue
        num_states, num_actions = task.transition.shape[:2]
        learners: dict[str, Learner] = {
            agent: loaded.learner_for(num_states, num_actions) for agent, loaded in agents.items()
        }
        if not options.no_baselines:
            learners |= baselines(task)
        random, optimum = levels(task)
        rows = {}
        for row, learner in learners.items():
            rows[row] = measure(learner, task, options)
            say(f"{name}, {row}: {rows[row]}")
        found[name] = {
            "random": round(float(random), 4),
            "optimum": round(float(optimum), 4),
            "rows": rows,
            "issue_3": {row: values[index] for row, values in ISSUE_3.items()},
        }
    settings = {"seeds": options.seeds, "seed": options.seed, "told_episodes": options.told}
    emit("episodes_until_solved", **settings, cap=options.cap, tasks=found)


if __name__ == "__main__":
    main()
