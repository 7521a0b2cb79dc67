"""The tables of total reward: what their numbers mean."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from metaql.qlearning import UCB1
from metaql.tasks.families import Bandit

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
totals = importlib.import_module("_totals")
bandits = importlib.import_module("_bandits")
optimum = importlib.import_module("bandit_optimum")
random_mdps = importlib.import_module("random_mdps")

KEY = jax.random.key(0)


def test_the_first_episodes_of_a_long_lifetime_are_a_short_one():
    tasks = Bandit(3, horizon=1).tasks(KEY, 8, "test")
    keys = jax.random.split(KEY, 8)
    at_once = totals.totals(UCB1(), tasks, keys, (4, 9), apart=False)
    apart = totals.totals(UCB1(), tasks, keys, (4, 9), apart=True)
    for n in (4, 9):
        np.testing.assert_allclose(at_once[n], apart[n])


def test_luck_is_removed_with_the_oracle_of_the_own_tasks():
    oracle = {2: np.array([1.0, 5.0, 9.0, 13.0])}
    rows = {"rule": {2: oracle[2] - 1.0}, "other": {2: oracle[2] - np.array([1.0, 2.0, 1.0, 2.0])}}
    found = totals.table(rows, oracle, {2: 6.0}, "rule")
    assert found["rule"]["2"] == {
        "total": totals.interval(rows["rule"][2]),
        "luck_removed": {"mean": 5.0, "low": 5.0, "high": 5.0},
    }
    assert found["other"]["2"]["luck_removed"]["mean"] == pytest.approx(4.5)
    assert found["other"]["2"]["minus_reference"]["mean"] == pytest.approx(-0.5)


@pytest.mark.parametrize("name", bandits.CASES)
def test_the_mean_of_the_best_arm_is_exact(name):
    case = bandits.CASES[name]
    tasks = case.tasks(KEY, 20_000, "test")
    best = np.asarray(tasks.reward[:, 0, :, 0].max(-1))
    error = best.std() / np.sqrt(len(best))
    assert case.mean_oracle() == pytest.approx(best.mean(), abs=4 * error)
    noise = np.asarray(tasks.reward_noise)
    if case.noise is not None:
        np.testing.assert_allclose(np.unique(noise), [0.0, case.noise], rtol=1e-6)


def test_what_was_chosen_was_compared():
    for name, case in bandits.CASES.items():
        rows = bandits.rows_of(case)
        chosen = bandits.CHOSEN[name]
        assert chosen.keys() == {row for row in rows if rows[row].settings}
        for row, settings in chosen.items():
            assert len(settings) == len(case.budgets)
            assert set(settings) <= set(rows[row].settings)
    for _, compared, chosen in random_mdps.ROWS.values():
        assert len(chosen) == len(random_mdps.BUDGETS)
        assert not compared or set(chosen) <= set(compared)


@pytest.mark.parametrize(
    ("arms", "pulls", "total"),
    [
        (1, 4, 2.0),  # nothing to choose
        (2, 1, 0.5),
        (2, 2, 0.5 + 0.5 * 2 / 3 + 0.5 * 0.5),  # stay with a winner, leave a loser
        # After a win stay; after a loss go over, and with two losers there is a third, or none.
        (2, 3, 0.5 + 0.5 * (2 / 3 + 2 / 3 * 3 / 4 + 1 / 3 * 1 / 2) + 0.5 * (0.5 + 1 / 3 + 1 / 6)),
        (3, 3, 0.5 + 0.5 * (2 / 3 + 2 / 3 * 3 / 4 + 1 / 3 * 1 / 2) + 0.5 * (0.5 + 1 / 3 + 1 / 4)),
    ],
)
def test_the_most_that_few_pulls_can_earn_is_exact(arms: int, pulls: int, total: float):
    assert optimum.bayes_optimal_total(arms, pulls) == pytest.approx(total)


def test_no_index_earns_more_than_the_most_there_is():
    case = bandits.Case(3, (6,))
    tasks = case.tasks(KEY, 20_000, "validation")
    keys = jax.random.split(jax.random.key(1), 20_000)
    learner = bandits.rows_of(case)["Gittins, pulls left"].make(case, None, 6)
    found = totals.totals(learner, tasks, keys, (6,), apart=False)[6]
    most, error = optimum.bayes_optimal_total(3, 6), found.std() / np.sqrt(len(found))
    assert most - 0.05 < found.mean() < most + 3.0 * error
