"""RL2's random MDPs: total reward of n episodes beside what was published (issue 3, table T1).

Protocol, that of Duan et al. 2016 (arXiv 1611.02779, section 3.2), fixed beforehand:

- 10 states, 5 actions, episodes of 10 steps from state 0; next states Dirichlet(1), mean rewards
  Normal(1, 1), observed rewards Normal(mean, 1). Total undiscounted reward of n episodes, noise
  included; mean over 1,000 tasks of the test split, each lived once, with 95% bootstrap intervals.
- Every row lives in the same tasks with the same keys; differences to the reference row are paired.
- Constants were chosen for every n by ``--tune --trials 512`` on the validation split, those of the
  reference by ``--trials 4096`` (at n = 50, c = 1.25 and 1.5 are equal to 0.001). The paper's authors
  chose theirs on the very trials they report.
- Agents are told n; no other row uses it but for its constant.

Published beside measured: PSRL, OPSRL, UCRL2 and BEB of the paper are Osband's TabulaRL. Its prior on
mean rewards is Normal(0, 1), not the true one, so rows of both priors are measured. What differs: ours
learn from the last transition of an episode too, which TabulaRL leaves out; UCRL2 has a factor for each
of its two widths (theirs one for both); OPSRL's number of draws is of a grid (theirs 1 to 20).

"Mean + c * std" (`MeanStdPlanner`): true prior, backward induction over the steps left, at every step.

    python benchmarks/random_mdps.py --agent finite          # minutes on two CPU cores
    python benchmarks/random_mdps.py --tune                  # chooses the constants again
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from _common import emit, say
from _totals import Totals, best, interval, means, table, timed

import metaql
from metaql.qlearning import BEB, PSRL, UCRL2, MeanStdPlanner
from metaql.tasks.exact import optimal_return, policy_return, uniform_policy
from metaql.tasks.families.random_mdp import RandomMDP
from metaql.types import Learner

BUDGETS = (10, 25, 50, 75, 100)
FAMILY = RandomMDP()
MANY_TASKS = 100_000
"""Tasks of the test split whose mean optimum stands for that of the family."""
RULE = "mean + c * std, true prior"
PUBLISHED = {
    "random (RL2)": (100.1, 250.2, 499.7, 749.9, 999.4),
    "PSRL (RL2)": (138.1, 408.8, 904.4, 1417.1, 1939.5),
    "OPSRL (RL2)": (144.1, 425.2, 930.7, 1449.2, 1973.9),
    "UCRL2 (RL2)": (146.6, 424.1, 918.9, 1427.6, 1942.1),
    "BEB (RL2)": (150.2, 427.8, 917.8, 1422.6, 1935.1),
    "epsilon-greedy (RL2)": (132.8, 377.3, 823.3, 1293.9, 1778.2),
    "greedy (RL2)": (134.8, 368.8, 769.3, 1172.9, 1578.5),
    "RL2": (156.2, 445.7, 936.1, 1428.8, 1913.7),
    "SNAIL": (159.1, 447.2, 942.3, 1447.5, 1953.1),
    "best reimplementation of RL2": (160.1, None, None, None, None),
    "mean + c * std (issue 3)": (162.7, 459.1, 975.5, 1503.3, 2033.7),
    "oracle (issue 3)": (218.0, 546.0, 1091.0, 1637.0, 2181.0),
}
"""RL2: arXiv 1611.02779, table 2. SNAIL: arXiv 1707.03141, table 4."""
BARS = (163.0, 460.0, 977.0, 1505.0, 2036.0)

Setting = tuple[float, ...]


def _planned(reward_mean: float) -> dict[str, Any]:
    """The true prior, but for the mean of mean rewards."""
    return {
        "horizon": FAMILY.horizon,
        "transition_prior": 1.0,
        "reward_mean": reward_mean,
        "reward_count": 1.0,
    }


def mean_std(scale: float) -> Learner:
    """The rule with the true prior."""
    return MeanStdPlanner(scale=scale, gamma=1.0, **_planned(1.0))


def psrl(reward_mean: float, samples: float = 1) -> Learner:
    """Posterior sampling; optimistic with several samples."""
    return PSRL(ending_prior=0.0, samples=int(samples), **_planned(reward_mean))


def ucrl2(reward_scale: float, transition_scale: float) -> Learner:
    """Optimism over confidence sets."""
    return UCRL2(
        horizon=FAMILY.horizon, reward_scale=reward_scale, transition_scale=transition_scale
    )


Row = tuple[Callable[..., Learner], tuple[Setting, ...], tuple[Setting, ...]]
ROWS: dict[str, Row] = {
    RULE: (
        mean_std,
        tuple((c,) for c in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)),
        ((0.75,), (1.0,), (1.5,), (1.5,), (1.5,)),
    ),
    "posterior mean (c = 0), true prior": (mean_std, (), ((0.0,),) * 5),
    "PSRL, prior of TabulaRL": (psrl, (), ((0.0,),) * 5),
    "PSRL, true prior": (psrl, (), ((1.0,),) * 5),
    "OPSRL, prior of TabulaRL": (
        psrl,
        tuple((0.0, k) for k in (3, 5, 10, 20)),
        ((0.0, 20),) * 5,
    ),
    "UCRL2": (
        ucrl2,
        tuple((r, p) for r in (0.1, 0.2, 0.3) for p in (0.01, 0.02, 0.04)),
        ((0.1, 0.04), (0.2, 0.04), (0.2, 0.04), (0.3, 0.01), (0.3, 0.01)),
    ),
    "BEB, prior of TabulaRL": (
        lambda beta: BEB(beta=beta, **_planned(0.0)),
        tuple((beta,) for beta in (0.3, 1.0, 2.0, 3.0, 5.0)),
        ((3.0,),) * 5,
    ),
    "BEB, true prior": (
        lambda beta: BEB(beta=beta, **_planned(1.0)),
        tuple((beta,) for beta in (0.1, 0.3, 1.0, 2.0, 3.0)),
        ((0.3,), (1.0,), (1.0,), (1.0,), (1.0,)),
    ),
}
"""Row -> its learner from a setting, the settings that ``--tune`` compares, those chosen by budget."""


def tune(names: Sequence[str], trials: int, seed: int) -> dict[str, Any]:
    """Every setting of the rows on validation tasks, and the best for each budget."""
    key_tasks, key_lives = jax.random.split(jax.random.key(seed))
    tasks = FAMILY.tasks(key_tasks, trials, "validation")
    keys = jax.random.split(key_lives, trials)
    found: dict[str, Any] = {}
    for name in names:
        make, settings, _ = ROWS[name]
        tried = {
            setting: timed(f"{name} {setting}", make(*setting), tasks, keys, BUDGETS, apart=False)
            for setting in settings
        }
        if tried:
            found[name] = {"chosen": best(tried), "totals": means(tried)}
            say(f"{name}: {found[name]['chosen']}")
    return found


def measure(names: Sequence[str], agents: Sequence[str], trials: int, seed: int) -> dict[str, Any]:
    """Every row on the test split."""
    key_tasks, key_lives, key_many = jax.random.split(jax.random.key(seed), 3)
    tasks = FAMILY.tasks(key_tasks, trials, "test")
    keys = jax.random.split(key_lives, trials)
    rows: dict[str, Totals] = {}
    for name in names:
        make, _, chosen = ROWS[name]
        lived = {
            setting: timed(f"{name} {setting}", make(*setting), tasks, keys, BUDGETS, apart=False)
            for setting in dict.fromkeys(chosen)
        }
        rows[name] = {n: lived[setting][n] for n, setting in zip(BUDGETS, chosen, strict=True)}
    for name in agents:
        learner = metaql.load(name).learner_for(FAMILY.num_states, FAMILY.num_actions)
        rows[f"agent {name}"] = timed(f"agent {name}", learner, tasks, keys, BUDGETS, apart=True)
    optimum = np.asarray(jax.jit(jax.vmap(optimal_return))(tasks), np.float64)
    chance = np.asarray(jax.jit(jax.vmap(_random_return))(tasks), np.float64)
    family_optimum = mean_optimum(key_many)
    say(f"oracle per episode: {optimum.mean():.4f} here, {family_optimum:.4f} in the family")
    oracle = {n: n * optimum for n in BUDGETS}
    mean_oracle = {n: n * family_optimum for n in BUDGETS}
    return {
        "rows": table(rows, oracle, mean_oracle, RULE),
        "levels": {
            "oracle (exact)": {str(n): interval(values) for n, values in oracle.items()},
            "random (exact)": {str(n): interval(n * chance) for n in BUDGETS},
            "oracle of the family": {str(n): round(x, 2) for n, x in mean_oracle.items()},
        },
    }


def _random_return(task: Any) -> Any:
    return policy_return(task, uniform_policy(task))


def mean_optimum(key: Any, chunk: int = 10_000) -> float:
    """Mean optimal return of an episode over `MANY_TASKS` tasks."""

    @eqx.filter_jit
    def some(key: Any) -> Any:
        keys = jax.random.split(key, chunk)
        return jax.vmap(lambda k: optimal_return(FAMILY.sample(k, "test")))(keys).mean()

    return float(np.mean([some(k) for k in jax.random.split(key, MANY_TASKS // chunk)]))


def by_budget(row: Sequence[Any]) -> Mapping[str, Any]:
    """Figures of a row under the budgets they belong to."""
    return {str(n): value for n, value in zip(BUDGETS, row, strict=True) if value is not None}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--agent", action="append", default=[], help="folder or name of an agent (repeatable)"
    )
    parser.add_argument("--trials", type=int, default=1000, help="tasks, each lived once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true", help="only choose constants (validation)")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        help="part of a baseline's name: only those, and c * std",
    )
    options = parser.parse_args()
    wanted = [*options.row, RULE] if options.row else [""]
    names = [name for name in ROWS if any(part in name for part in wanted)]
    shared = {"seed": options.seed, "trials": options.trials, "budgets": BUDGETS}
    if options.tune:
        emit("random_mdps_tune", **shared, rows=tune(names, options.trials, options.seed))
        return
    emit(
        "random_mdps",
        **shared,
        reference=RULE,
        published={name: by_budget(row) for name, row in PUBLISHED.items()},
        bars=by_budget(BARS),
        constants={name: by_budget(ROWS[name][2]) for name in names},
        **measure(names, options.agent, options.trials, options.seed),
    )


if __name__ == "__main__":
    main()
