"""The problems of ``bandits.py``, what was published of them, and the baselines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from metaql.qlearning import UCB1, Gittins, MeanStdPlanner, NormalGittins, Thompson
from metaql.qlearning.gittins import discounted_table, horizon_table, normal_bonus
from metaql.tasks.families.bandit import DECEPTIVE_NOISE, DECEPTIVE_REWARD, Bandit
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner, PRNGKey

MOST_PULLS = 100
"""Most pulls for which the indices of the pulls left are worked out: their table is a cube."""


class Case(NamedTuple):
    """One bandit problem."""

    arms: int
    budgets: tuple[int, ...]
    noise: float | None = None
    """Standard deviation of the arms of a deceptive bandit; None: Bernoulli."""

    def tasks(self, key: PRNGKey, trials: int, split: str, pulls: int = 1) -> FiniteTask:
        """Bandits with episodes of so many pulls."""
        if self.noise is None:
            return Bandit(self.arms, horizon=pulls).tasks(key, trials, split)
        tasks = Bandit(self.arms, horizon=pulls, kind="deceptive").tasks(key, trials, split)
        return tasks._replace(reward_noise=tasks.reward_noise * (self.noise / DECEPTIVE_NOISE))

    def told_budgets(self) -> tuple[int, ...]:
        """Budgets for which the indices of the pulls left are worked out."""
        return tuple(n for n in self.budgets if n <= MOST_PULLS)

    def mean_oracle(self) -> float:
        """Mean of the best arm, over all bandits."""
        if self.noise is None:
            return self.arms / (self.arms + 1)
        above = quad(lambda x: 1.0 - norm.cdf(x) ** (self.arms - 1), DECEPTIVE_REWARD, np.inf)[0]
        return DECEPTIVE_REWARD + above


CASES = {
    "bernoulli, 5 arms": Case(5, (10, 100, 500)),
    "bernoulli, 10 arms": Case(10, (10, 100, 500)),
    "bernoulli, 50 arms": Case(50, (10, 100, 500)),
    "deceptive, noise of variance 1/2": Case(10, (100,), DECEPTIVE_NOISE),
    "deceptive, noise of standard deviation 1/2": Case(10, (100,), 0.5),
}
BERNOULLI = tuple(name for name, case in CASES.items() if case.noise is None)
PUBLISHED: dict[str, dict[str, tuple[float | None, ...]]] = {
    BERNOULLI[0]: {
        "random (RL2)": (5.0, 49.9, 249.8),
        "Gittins (RL2)": (6.6, 78.3, 405.8),
        "Thompson (RL2)": (5.7, 74.7, 402.0),
        "OTS (RL2)": (6.5, 77.9, 406.7),
        "UCB1 (RL2)": (6.7, 78.0, 405.8),
        "RL2": (6.7, 78.7, 401.6),
        "SNAIL": (None, 79.1, 408.1),
    },
    BERNOULLI[1]: {
        "random (RL2)": (5.0, 49.9, 249.0),
        "Gittins (RL2)": (6.6, 82.8, 437.8),
        "Thompson (RL2)": (5.5, 76.7, 429.5),
        "OTS (RL2)": (6.2, 81.4, 438.9),
        "UCB1 (RL2)": (6.7, 82.4, 437.1),
        "RL2": (6.7, 83.5, 432.5),
    },
    BERNOULLI[2]: {
        "random (RL2)": (5.1, 49.8, 249.6),
        "Gittins (RL2)": (6.5, 85.2, 463.7),
        "Thompson (RL2)": (5.2, 64.5, 427.2),
        "OTS (RL2)": (5.5, 67.7, 437.6),
        "UCB1 (RL2)": (6.6, 84.3, 457.6),
        "RL2": (6.8, 84.9, 438.9),
    },
    **{
        name: {"First-Explore": (127.7,), "UCB1 (First-Explore)": (116.8,)}
        for name in CASES
        if name not in BERNOULLI
    },
}
"""RL2: arXiv 1611.02779, table 1. SNAIL and First-Explore: as quoted in issue 3."""
BARS: dict[str, tuple[float | None, ...]] = {
    BERNOULLI[0]: (None, 79.1, 408.1),
    BERNOULLI[1]: (None, 83.5, 438.9),
    BERNOULLI[2]: (None, 85.2, 463.7),
    "deceptive, noise of variance 1/2": (131.0,),
}


class Row(NamedTuple):
    """One baseline."""

    make: Callable[[Case, Any, int], Learner]
    """From the problem, a setting and the pulls in all."""
    settings: tuple[Any, ...] = ()
    """What ``--tune`` compares."""
    told: bool = False
    """It is told how many pulls there are."""


def true_prior(case: Case) -> dict[str, Any]:
    """What is true of the arms of a deceptive bandit: the first one's mean is known."""
    mean = jnp.zeros(case.arms).at[0].set(DECEPTIVE_REWARD)
    return {"prior_mean": mean, "prior_count": jnp.full(case.arms, _count(case)).at[0].set(1e6)}


def same_prior(case: Case) -> dict[str, Any]:
    """The first arm is taken for one like the others."""
    return {"prior_mean": 0.0, "prior_count": _count(case)}


def _count(case: Case) -> float:
    """Pulls that a standard normal prior of the mean is worth."""
    return (case.noise or 1.0) ** 2


def normal_thompson(case: Case, **prior: Any) -> Learner:
    """Posterior sampling for normal arms."""
    return Thompson(reward_model="normal", reward_std=case.noise, **prior)


def mean_std(case: Case, scale: float, prior_mean: Any, prior_count: Any) -> Learner:
    """Posterior mean plus deviations: with one pull an episode there is nothing to plan."""
    return MeanStdPlanner(
        scale=scale,
        gamma=1.0,
        horizon=1,
        reward_mean=prior_mean,
        reward_count=prior_count,
        reward_std=case.noise,
    )


def normal_gittins(case: Case, pulls: int, *, known: bool) -> Learner:
    """The index of the pulls left, the mean of the first arm known or not."""
    return NormalGittins(
        bonus=normal_bonus(pulls, 1.0, case.noise or 1.0),
        uncertain=jnp.ones(case.arms).at[0].set(0.0 if known else 1.0),
        **(true_prior if known else same_prior)(case),
    )


MEAN_STD = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
REFERENCE = "Gittins, pulls left"
UCB_SCALES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.5)
BERNOULLI_ROWS = {
    "UCB1": Row(lambda case, *_: UCB1(prior_count=0.0)),
    "UCB1, tuned": Row(lambda case, scale, _: UCB1(scale=scale), UCB_SCALES),
    "Thompson": Row(lambda *_: Thompson()),
    "OTS (May et al. 2012)": Row(lambda *_: Thompson(optimism="mean")),
    "OTS of RL2's authors, 10 draws": Row(lambda *_: Thompson(optimism="mode", samples=10)),
    "Gittins, discount tuned": Row(
        lambda case, discount, _: Gittins(table=discounted_table(max(case.budgets), discount)),
        (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
    ),
    REFERENCE: Row(lambda case, _, pulls: Gittins(table=horizon_table(pulls)), told=True),
}
DECEPTIVE_ROWS = {
    "UCB1": Row(lambda case, *_: UCB1(prior_count=0.0)),
    "UCB1, tuned": Row(lambda case, scale, _: UCB1(scale=scale, prior_count=0.0), UCB_SCALES),
    "Thompson": Row(lambda case, *_: normal_thompson(case, **same_prior(case))),
    "Thompson, first arm known": Row(lambda case, *_: normal_thompson(case, **true_prior(case))),
    "mean + c * std": Row(lambda case, c, _: mean_std(case, c, **same_prior(case)), MEAN_STD),
    "mean + c * std, first arm known": Row(
        lambda case, c, _: mean_std(case, c, **true_prior(case)), MEAN_STD
    ),
    "Gittins, pulls left, first arm like the others": Row(
        lambda case, _, pulls: normal_gittins(case, pulls, known=False), told=True
    ),
    REFERENCE: Row(lambda case, _, pulls: normal_gittins(case, pulls, known=True), told=True),
}


def rows_of(case: Case) -> dict[str, Row]:
    """The baselines of a problem."""
    return BERNOULLI_ROWS if case.noise is None else DECEPTIVE_ROWS


CHOSEN: dict[str, dict[str, tuple[Any, ...]]] = {
    "bernoulli, 5 arms": {
        "UCB1, tuned": (0.2, 0.2, 0.2),
        "Gittins, discount tuned": (0.9, 0.98, 0.995),
    },
    "bernoulli, 10 arms": {
        "UCB1, tuned": (0.1, 0.2, 0.2),
        "Gittins, discount tuned": (0.9, 0.98, 0.998),
    },
    "bernoulli, 50 arms": {
        "UCB1, tuned": (0.15, 0.2, 0.2),
        "Gittins, discount tuned": (0.9, 0.98, 0.998),
    },
    "deceptive, noise of variance 1/2": {
        "UCB1, tuned": (0.3,),
        "mean + c * std": (1.75,),
        "mean + c * std, first arm known": (1.5,),
    },
    "deceptive, noise of standard deviation 1/2": {
        "UCB1, tuned": (0.2,),
        "mean + c * std": (1.75,),
        "mean + c * std, first arm known": (1.75,),
    },
}
"""Settings of the tuned rows by number of pulls: what ``--tune`` printed."""
