"""Bandits: total reward of n pulls beside what was published (issue 3, table T2).

Protocol, fixed beforehand:

- ``bernoulli``, that of Duan et al. 2016 (arXiv 1611.02779, section 3.1): 5, 10 or 50 arms that pay 1
  with a probability uniform in [0, 1]; 10, 100 or 500 pulls.
- ``deceptive``, that of First-Explore (Norman & Clune 2023, arXiv 2307.02276): 10 arms, the first
  always pays 0.5, the means of the others are Normal(0, 1) with normal noise; 100 pulls. Issue 3 has
  noise of variance 1/2, the authors' code a standard deviation of 1/2: both are measured.
- Total reward, mean over 4,000 bandits (the papers: 1,000) of the test split, each lived once, with 95%
  bootstrap intervals. Every row lives in the same bandits with the same keys; differences are paired.
- A lifetime is n episodes of one pull, as in both papers' code; ``--one-episode`` gives agents one
  episode of n pulls instead. The baselines are the same in both.
- Constants were chosen by ``--tune`` on 1,000 bandits of the validation split, for every n. (RL2's
  authors chose theirs on the very trials they report.) Agents are told n; of the other rows only
  "Gittins, pulls left" is.

"Luck removed" has the expectation of the total without the luck of the draw (`_totals.table`). It shows
what can be had at all: "Gittins, pulls left" is close to Bayes-optimal, and some bars are above it.

    python benchmarks/bandits.py --agent finite               # minutes on two CPU cores
    python benchmarks/bandits.py --tune --trials 1000         # chooses the constants again
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from _bandits import BARS, CASES, CHOSEN, PUBLISHED, REFERENCE, Case, rows_of
from _common import emit, say
from _totals import Totals, best, interval, means, table, timed

import metaql
from metaql.types import PRNGKey


def tune(case: Case, trials: int, seed: int) -> dict[str, Any]:
    """Every setting of the rows on validation bandits, and the best for each number of pulls."""
    key_tasks, key_lives = jax.random.split(jax.random.key(seed))
    tasks = case.tasks(key_tasks, trials, "validation")
    keys = jax.random.split(key_lives, trials)
    found: dict[str, Any] = {}
    for name, row in rows_of(case).items():
        tried = {
            setting: timed(
                words(name, setting),
                row.make(case, setting, 0),
                tasks,
                keys,
                case.budgets,
                apart=False,
            )
            for setting in row.settings
        }
        if tried:
            found[name] = {"chosen": best(tried), "totals": means(tried)}
            say(f"{name}: {found[name]['chosen']}")
    return found


def words(name: str, setting: Any) -> str:
    """A row and its setting, where it has one."""
    return name if setting is None else f"{name} ({setting})"


def baseline(name: str, case: Case, chosen: Sequence[Any], tasks: Any, keys: PRNGKey) -> Totals:
    """One baseline with the setting that was chosen for each number of pulls."""
    row = rows_of(case)[name]
    if row.told:
        found: Totals = {}
        for pulls in case.told_budgets():
            learner = row.make(case, None, pulls)
            found |= timed(name, learner, tasks, keys, (pulls,), apart=True)
        return found
    lived = {
        setting: timed(
            words(name, setting), row.make(case, setting, 0), tasks, keys, case.budgets, apart=False
        )
        for setting in dict.fromkeys(chosen)
    }
    return {n: lived[setting][n] for n, setting in zip(case.budgets, chosen, strict=True)}


def agent(
    name: str, case: Case, trials: int, seeds: tuple[PRNGKey, PRNGKey], *, one: bool
) -> Totals:
    """An agent, told the number of pulls; with ``one`` they are one episode."""
    learner = metaql.load(name).learner_for(1, case.arms)
    key_tasks, key_lives = seeds
    keys = jax.random.split(key_lives, trials)
    found: Totals = {}
    for pulls in case.budgets:
        tasks = case.tasks(key_tasks, trials, "test", pulls if one else 1)
        lived = timed(
            f"agent {name}, {pulls} pulls", learner, tasks, keys, (1 if one else pulls,), apart=True
        )
        found[pulls] = next(iter(lived.values()))
    return found


def measure(
    name: str, agents: Sequence[str], trials: int, seed: int, *, one: bool
) -> dict[str, Any]:
    """Every row of one problem on the test split."""
    case = CASES[name]
    key_tasks, key_lives = jax.random.split(jax.random.key(seed))
    tasks = case.tasks(key_tasks, trials, "test")
    keys = jax.random.split(key_lives, trials)
    fixed = (None,) * len(case.budgets)
    rows = {
        row: baseline(row, case, CHOSEN[name].get(row, fixed), tasks, keys) for row in rows_of(case)
    }
    for each in agents:
        rows[f"agent {each}"] = agent(each, case, trials, (key_tasks, key_lives), one=one)
    best_arm = np.asarray(tasks.reward[:, 0, :, 0].max(-1), np.float64)
    oracle = {n: n * best_arm for n in case.budgets}
    mean_oracle = {n: n * case.mean_oracle() for n in case.budgets}
    chance = np.asarray(tasks.reward[:, 0, :, 0].mean(-1), np.float64)
    return {
        "rows": table(rows, oracle, mean_oracle, REFERENCE),
        "levels": {
            "oracle (exact)": {str(n): interval(values) for n, values in oracle.items()},
            "random (exact)": {str(n): interval(n * chance) for n in case.budgets},
            "oracle of all bandits": {str(n): round(x, 2) for n, x in mean_oracle.items()},
        },
        "published": {row: by_budget(case, figures) for row, figures in PUBLISHED[name].items()},
        "bars": by_budget(case, BARS.get(name, fixed)),
        "constants": {row: by_budget(case, chosen) for row, chosen in CHOSEN[name].items()},
    }


def by_budget(case: Case, row: Sequence[Any]) -> Mapping[str, Any]:
    """Figures of a row under the pulls they belong to."""
    return {str(n): value for n, value in zip(case.budgets, row, strict=True) if value is not None}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--agent", action="append", default=[], help="folder or name of an agent (repeatable)"
    )
    parser.add_argument("--trials", type=int, default=4000, help="bandits, each lived once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", default="", help="part of a problem's name: only those")
    parser.add_argument(
        "--one-episode", action="store_true", help="agents get one episode of n pulls"
    )
    parser.add_argument("--tune", action="store_true", help="only choose constants (validation)")
    options = parser.parse_args()
    shared = {"seed": options.seed, "trials": options.trials}
    names = [name for name in CASES if options.case in name]
    found = {}
    for name in names:
        say(f"-- {name}")
        if options.tune:
            found[name] = tune(CASES[name], options.trials, options.seed)
        else:
            found[name] = measure(
                name, options.agent, options.trials, options.seed, one=options.one_episode
            )
    if options.tune:
        emit("bandits_tune", **shared, cases=found)
    else:
        form = "one episode" if options.one_episode else "an episode per pull"
        emit("bandits", **shared, agents_live=form, reference=REFERENCE, cases=found)


if __name__ == "__main__":
    main()
