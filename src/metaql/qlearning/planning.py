"""What the model-based baselines share: counts of what happened, and a plan for every step left."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.qlearning.schedules import epsilon_greedy
from metaql.tasks.exact import NEVER, Model, backup, greedy_values
from metaql.types import Decision, PRNGKey, TaskSpec, Transition


class Counts(NamedTuple):
    """Sufficient statistics of a finite task."""

    arrivals: Float[Array, "S A S"]
    """How often ``s, a`` led to ``s2``, the episode ending there or not."""
    endings: Float[Array, "S A S"]
    """How often it ended there (terminated; truncation is the clock's)."""
    reward_sum: Float[Array, "S A"]

    @property
    def visits(self) -> Float[Array, "S A"]:
        """How often each pair was tried."""
        return self.arrivals.sum(-1)


def no_counts(spec: TaskSpec) -> Counts:
    """Counts before the first step."""
    num_states, num_actions = spec.state_mask.shape[0], spec.action_mask.shape[0]
    cube = jnp.zeros((num_states, num_actions, num_states))
    return Counts(cube, cube, jnp.zeros((num_states, num_actions)))


def count(counts: Counts, transition: Transition) -> Counts:
    """Counts after one more transition."""
    at = (transition.state, transition.action, transition.next_state)
    return Counts(
        counts.arrivals.at[at].add(1.0),
        counts.endings.at[at].add(transition.terminated.astype(jnp.float32)),
        counts.reward_sum.at[at[:2]].add(transition.reward),
    )


class Clock(NamedTuple):
    """Where in the episode the agent is, and what the plan may not forget."""

    step: Int[Array, ""]
    """Steps taken in this episode."""
    horizon: Int[Array, ""]
    """Steps after which an episode is truncated."""
    action_mask: Bool[Array, " A"]
    state_mask: Bool[Array, " S"]


def start_clock(spec: TaskSpec) -> Clock:
    """The clock before the first step."""
    return Clock(jnp.zeros((), jnp.int32), spec.horizon, spec.action_mask, spec.state_mask)


def tick(clock: Clock, transition: Transition) -> tuple[Clock, Bool[Array, ""]]:
    """The clock after a step, and whether the episode ended with it."""
    ended = transition.terminated | transition.truncated
    return clock._replace(step=jnp.where(ended, 0, clock.step + 1)), ended


class Plan(NamedTuple):
    """Q for every number of steps left: row ``h`` has ``h + 1`` steps to go."""

    acting: Float[Array, "H S A"]
    """What is acted on: optimistic or sampled."""
    believed: Float[Array, "H S A"]
    """What is believed."""


def plan_every_step(
    model: Model,
    horizon: int,
    bonus: Float[Array, "S A"] | float = 0.0,
    caps: Float[Array, "#H #S #A"] | float = jnp.inf,
) -> Float[Array, "H S A"]:
    """Finite-horizon Q of ``horizon`` steps by backward induction, all rows kept.

    ``Q_h = min(cap_h, bonus + r + P V_{h-1})`` with ``V_{-1} = 0``; ``exact.plan_horizon`` is its
    last row without bonus and caps.
    """
    caps = jnp.broadcast_to(jnp.asarray(caps), (horizon, *model.reward.shape))

    def sweep(q: Array, cap: Array) -> tuple[Array, Array]:
        values = greedy_values(q, model.action_mask)
        q = jnp.minimum(backup(model, values, 1.0) + bonus, cap)
        return q, q

    return jax.lax.scan(sweep, jnp.zeros_like(model.reward), caps)[1]


def act_on_plan(key: PRNGKey, plan: Plan, clock: Clock, state: Int[Array, ""]) -> Decision:
    """Greedy for the steps left; beyond the plan's own horizon, on its longest row."""
    row = jnp.clip(clock.horizon - clock.step, 1, plan.acting.shape[0]) - 1
    values = jnp.where(clock.action_mask, plan.acting[row, state], NEVER)
    estimate = jnp.where(clock.action_mask, plan.believed[row, state], NEVER)
    return Decision(epsilon_greedy(key, values, clock.action_mask), values, estimate)
