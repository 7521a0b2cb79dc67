"""Baselines tuned for a table's own tasks: an advantage that no agent under test has.

Of each kind the best of a small grid is taken, chosen on the very tasks with other seeds. Constants are
in units of the tasks: the largest expected reward of a pair, and the mean size of the optimal return.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _common import say
from _lives import Budget, Lived, live_through
from jaxtyping import Array, Int

from metaql.qlearning import PSRL, UCBVI, Constant, Harmonic, QLearning
from metaql.tasks.exact import model_of
from metaql.tasks.finite import FiniteTask
from metaql.types import Decision, Learner, Memory, PRNGKey, TaskSpec, Transition

Setting = dict[str, float | str]
LONGEST_PLAN, SHORT_PLAN = 100, 50
REPLANS = (None, 20)
"""Steps after which UCBVI and PSRL plan anew; None: only between episodes."""
STEP_SIZES = {"harmonic 10": Harmonic(10.0), "constant 0.3": Constant(0.3)}
INITIAL_VALUES = (0.0, 0.5, 1.0)
EPSILONS = (0.0, 0.1)
BONUSES = (1e-5, 1e-4)
LARGEST_RETURNS = {"optimum": 1.0, "unknown": np.inf}
"""What UCBVI is told of the largest return, in optimal returns."""
REWARD_STDS = (1e-3, 0.03, 1.0)
PRIOR_MASSES = (1.0, 0.1)
"""Pseudo-counts of PSRL's prior over all next states together."""


class Units(NamedTuple):
    """What constants are measured in."""

    largest: float
    """Largest expected reward of a pair, in size."""
    optimum: float
    """Mean size of the optimal return."""


def units(tasks: FiniteTask, optimum: Any) -> Units:
    """The units of one task or a batch."""
    model = jax.vmap(model_of) if tasks.initial.ndim == 2 else model_of
    largest = float(jnp.abs(jax.jit(model)(tasks).reward).max())
    return Units(largest, float(np.abs(optimum).mean()))


class Replanning(eqx.Module):
    """A learner that plans between episodes, made to plan every so many steps too.

    It is given truncations that never happened; in episodes of hundreds of steps it would otherwise
    act on what it believed when they began.
    """

    plans_between_episodes: ClassVar[bool] = True

    inner: UCBVI | PSRL
    every: int = eqx.field(static=True)

    def init(self, key: PRNGKey, spec: TaskSpec) -> Memory:
        """As the learner inside, for episodes no longer than its plan."""
        horizon = jnp.minimum(spec.horizon, self.inner.horizon)
        return self.inner.init(key, spec._replace(horizon=horizon))

    def act(self, key: PRNGKey, memory: Memory, state: Int[Array, ""]) -> Decision:
        """As the learner inside."""
        return self.inner.act(key, memory, state)

    def update(self, key: PRNGKey, memory: Memory, transition: Transition) -> Memory:
        """Plan anew where the episode ended or the plan is old."""
        old = (memory.clock.step + 1 >= self.every) & ~transition.terminated
        return self.inner.update(
            key, memory, transition._replace(truncated=transition.truncated | old)
        )


def grid(kind: str, tasks: FiniteTask, unit: Units) -> Iterator[tuple[Setting, Learner]]:
    """Every setting of one kind of baseline."""
    if kind == "Q-learning":
        for name, value, epsilon in itertools.product(STEP_SIZES, INITIAL_VALUES, EPSILONS):
            setting: Setting = {"step_size": name, "initial_value": value, "epsilon": epsilon}
            learner = QLearning(
                step_size=STEP_SIZES[name],
                epsilon=Constant(epsilon),
                initial_value=value * unit.optimum,
            )
            yield setting, learner
        return
    horizon = int(np.max(np.asarray(tasks.horizon)))
    for every, (setting, make) in itertools.product(REPLANS, _planners(kind, tasks, unit)):
        if every is None:
            yield {**setting, "replans": "between episodes"}, make(min(horizon, LONGEST_PLAN))
        elif every < horizon:
            learner = Replanning(make(min(horizon, SHORT_PLAN)), every)
            yield {**setting, "replans": f"every {every} steps"}, learner


def _planners(
    kind: str, tasks: FiniteTask, unit: Units
) -> list[tuple[Setting, Callable[[int], UCBVI | PSRL]]]:
    """Settings of a planner, each with its maker from the longest plan."""
    if kind == "UCBVI":
        return [
            (
                {"bonus_scale": bonus, "max_return": most},
                partial(
                    UCBVI,
                    bonus_scale=bonus,
                    max_reward=unit.largest,
                    max_return=LARGEST_RETURNS[most] * unit.optimum,
                ),
            )
            for bonus, most in itertools.product(BONUSES, LARGEST_RETURNS)
        ]
    num_states = tasks.initial.shape[-1]
    return [
        (
            {"reward_std": std, "prior_mass": mass},
            partial(
                PSRL,
                transition_prior=mass / num_states,
                ending_prior=mass / num_states,
                reward_count=0.1,
                reward_std=std * unit.largest,
            ),
        )
        for std, mass in itertools.product(REWARD_STDS, PRIOR_MASSES)
    ]


KINDS = ("UCBVI", "PSRL, sparse prior", "Q-learning")


def tuned(
    tasks: FiniteTask,
    keys: PRNGKey,
    budget: Budget,
    optimum: Any,
    worth: Callable[[Lived], float],
) -> Mapping[str, tuple[Setting, Learner]]:
    """The best setting of each kind by ``worth``, on these tasks with these keys."""
    unit, best = units(tasks, optimum), {}
    for kind in KINDS:
        tried = [
            (worth(live_through(learner, tasks, keys, budget)), setting, learner)
            for setting, learner in grid(kind, tasks, unit)
        ]
        _, setting, learner = max(tried, key=lambda each: each[0])
        say(f"  {kind}: {setting}")
        best[kind] = (setting, learner)
    return best
