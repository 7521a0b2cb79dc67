"""What the model-based baselines share: counts, a posterior over tasks, a plan for every step left."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.qlearning.schedules import as_float, epsilon_greedy
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


def steps_left(clock: Clock) -> Int[Array, ""]:
    """Steps until the episode is truncated."""
    return clock.horizon - clock.step


class Plan(NamedTuple):
    """Q for every number of steps left: row ``h`` has ``h + 1`` steps to go."""

    acting: Float[Array, "H S A"]
    """What is acted on: optimistic or sampled."""
    believed: Float[Array, "H S A"]
    """What is believed."""


def plan_every_step(
    model: Model,
    horizon: int,
    bonus: Float[Array, "#H #S #A"] | float = 0.0,
    caps: Float[Array, "#H #S #A"] | float = jnp.inf,
) -> Float[Array, "H S A"]:
    """Finite-horizon Q of ``horizon`` steps by backward induction, all rows kept.

    ``Q_h = min(cap_h, bonus_h + r + P V_{h-1})`` with ``V_{-1} = 0``; ``exact.plan_horizon`` is its
    last row without bonus and caps.
    """
    shape = (horizon, *model.reward.shape)
    rows = jnp.broadcast_to(jnp.asarray(bonus), shape), jnp.broadcast_to(jnp.asarray(caps), shape)

    def sweep(q: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        values = greedy_values(q, model.action_mask)
        q = jnp.minimum(backup(model, values, 1.0) + row[0], row[1])
        return q, q

    return jax.lax.scan(sweep, jnp.zeros_like(model.reward), rows)[1]


def act_on_plan(key: PRNGKey, plan: Plan, clock: Clock, state: Int[Array, ""]) -> Decision:
    """Greedy for the steps left; beyond the plan's own horizon, on its longest row."""
    row = jnp.clip(steps_left(clock), 1, plan.acting.shape[0]) - 1
    values = jnp.where(clock.action_mask, plan.acting[row, state], NEVER)
    estimate = jnp.where(clock.action_mask, plan.believed[row, state], NEVER)
    return Decision(epsilon_greedy(key, values, clock.action_mask), values, estimate)


class Posterior(NamedTuple):
    """What the counts say of a task under a `ConjugatePrior`."""

    model: Model
    """The posterior's mean."""
    outcomes_seen: Float[Array, "S A"]
    """Total count of the Dirichlet over next states and the end, prior included."""
    rewards_seen: Float[Array, "S A"]
    """Rewards that the mean reward rests on, prior included."""


class ConjugatePrior(eqx.Module):
    """A prior over tasks: Dirichlet next states, the end as one more outcome, normal mean rewards."""

    transition_prior: Float[Array, "*S"] = eqx.field(converter=as_float, default=1.0)
    """Dirichlet pseudo-count of each next state: a number or ``[S, A, S]``."""
    ending_prior: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)
    """Dirichlet pseudo-count of the end of the episode."""
    reward_mean: Float[Array, "*S"] = eqx.field(converter=as_float, default=0.0)
    """Prior mean reward: a number or ``[S, A]``."""
    reward_count: Float[Array, "*S"] = eqx.field(converter=as_float, default=1.0)
    """How many observed rewards the prior mean is worth."""

    def posterior(self, counts: Counts, clock: Clock) -> Posterior:
        """The posterior after ``counts``."""
        onward = self.transition_prior * clock.state_mask + counts.arrivals - counts.endings
        total = onward.sum(-1) + self.ending_prior + counts.endings.sum(-1)
        seen = self.reward_count + counts.visits
        reward = (self.reward_count * self.reward_mean + counts.reward_sum) / seen
        return Posterior(Model(reward, onward / total[..., None], clock.action_mask), total, seen)


class PlanMemory(NamedTuple):
    """Counts, the plan of this episode and where in it the agent is."""

    counts: Counts
    plan: Plan
    clock: Clock


class EpisodePlanner(eqx.Module):
    """A learner that plans before every episode from what it has counted, and then follows the plan."""

    plans_between_episodes: ClassVar[bool] = True

    horizon: int = eqx.field(static=True, default=100)
    """Longest plan, in steps; longer episodes begin on its last row."""

    @abc.abstractmethod
    def plan(self, key: PRNGKey, counts: Counts, clock: Clock) -> Plan:
        """The plan for an episode."""

    def init(self, key: PRNGKey, spec: TaskSpec) -> PlanMemory:
        """Plan with nothing counted."""
        counts, clock = no_counts(spec), start_clock(spec)
        return PlanMemory(counts, self.plan(key, counts, clock), clock)

    def act(self, key: PRNGKey, memory: PlanMemory, state: Int[Array, ""]) -> Decision:
        """Greedy on the plan for the steps left."""
        return act_on_plan(key, memory.plan, memory.clock, state)

    def update(self, key: PRNGKey, memory: PlanMemory, transition: Transition) -> PlanMemory:
        """Count; plan anew where the episode ended."""
        counts = count(memory.counts, transition)
        clock, ended = tick(memory.clock, transition)

        def replan(_: Plan) -> Plan:
            return self.plan(key, counts, clock)

        return PlanMemory(
            counts, jax.lax.cond(ended, replan, lambda plan: plan, memory.plan), clock
        )
