"""Optimism as a baseline: UCBVI, and the posterior mean plus so many posterior deviations."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.qlearning.planning import (
    Clock,
    Counts,
    Plan,
    act_on_plan,
    count,
    no_counts,
    plan_every_step,
    start_clock,
    tick,
)
from metaql.qlearning.schedules import as_float, epsilon_greedy
from metaql.tasks.exact import NEVER, Model, backup, greedy_values
from metaql.types import Decision, PRNGKey, TaskSpec, Transition


class UCBVIMemory(NamedTuple):
    """Counts, the plan of this episode and where in it the agent is."""

    counts: Counts
    plan: Plan
    clock: Clock
    log_term: Float[Array, ""]
    """``ln(5 S A T / delta)``."""


class UCBVI(eqx.Module):
    """Value iteration on the empirical model with Chernoff-Hoeffding bonuses.

    Azar, Osband & Munos 2017 (arXiv 1703.05449), algorithms 1-3: before every episode, backward
    induction with ``Q_h = min(Q_h of the last plan, cap_h, r_hat + P_hat V + b)``, where
    ``b = bonus_scale * cap * L * sqrt(1 / N)`` and ``L = ln(5 S A T / delta)``; a pair never tried
    is worth the cap. The paper's bonus has ``bonus_scale = 7``, far more than pays in practice.
    Terminations that were seen lead nowhere, worth zero.
    """

    plans_between_episodes: ClassVar[bool] = True

    horizon: int = eqx.field(static=True, default=100)
    """Longest plan, in steps; longer episodes begin on its last row."""
    bonus_scale: Float[Array, ""] = eqx.field(converter=as_float, default=7.0)
    max_reward: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """Largest reward of a step."""
    max_return: Float[Array, ""] = eqx.field(converter=as_float, default=jnp.inf)
    """Largest return of an episode, where more is known than ``horizon * max_reward``."""
    failure: Float[Array, ""] = eqx.field(converter=as_float, default=0.1)
    """delta, the probability with which the bonuses may fail."""

    def init(self, key: PRNGKey, spec: TaskSpec) -> UCBVIMemory:
        """Nothing known: every pair is worth its cap."""
        pairs = spec.state_mask.sum() * spec.action_mask.sum()
        steps = spec.episodes * jnp.minimum(spec.horizon, self.horizon)
        log_term = jnp.log(5.0 * pairs * steps.astype(jnp.float32) / self.failure)
        counts = no_counts(spec)
        shape = (self.horizon, *counts.reward_sum.shape)
        plan = Plan(jnp.broadcast_to(self._caps(), shape), jnp.zeros(shape))
        return UCBVIMemory(counts, plan, start_clock(spec), log_term)

    def act(self, key: PRNGKey, memory: UCBVIMemory, state: Int[Array, ""]) -> Decision:
        """Greedy on the optimistic plan for the steps left."""
        return act_on_plan(key, memory.plan, memory.clock, state)

    def update(self, key: PRNGKey, memory: UCBVIMemory, transition: Transition) -> UCBVIMemory:
        """Count; plan anew where the episode ended."""
        counts = count(memory.counts, transition)
        clock, ended = tick(memory.clock, transition)

        def replan(plan: Plan) -> Plan:
            return self._plan(counts, plan, clock, memory.log_term)

        plan = jax.lax.cond(ended, replan, lambda plan: plan, memory.plan)
        return UCBVIMemory(counts, plan, clock, memory.log_term)

    def _caps(self) -> Float[Array, "H 1 1"]:
        steps_left = jnp.arange(1, self.horizon + 1, dtype=jnp.float32)[:, None, None]
        return jnp.minimum(steps_left * self.max_reward, self.max_return)

    def _plan(self, counts: Counts, last: Plan, clock: Clock, log_term: Float[Array, ""]) -> Plan:
        tries = jnp.maximum(counts.visits, 1.0)
        model = Model(
            counts.reward_sum / tries,
            (counts.arrivals - counts.endings) / tries[..., None],
            clock.action_mask,
        )
        steps = jnp.clip(clock.horizon, 1, self.horizon)
        cap = self._caps()[steps - 1, 0, 0]
        bonus = self.bonus_scale * cap * log_term * jax.lax.rsqrt(tries)
        bonus = jnp.where(counts.visits > 0, bonus, jnp.inf)
        caps = jnp.minimum(last.acting, self._caps())
        # Both plans in one loop: its cost is the number of sweeps, not their size.
        bonuses = jnp.stack([bonus, jnp.zeros_like(bonus)])
        both_caps = jnp.stack([caps, jnp.full_like(caps, jnp.inf)])
        plans = jax.vmap(lambda b, c: plan_every_step(model, self.horizon, b, c))
        return Plan(*plans(bonuses, both_caps))


class MeanStdMemory(NamedTuple):
    """Counts and two value tables that are kept warm."""

    counts: Counts
    q: Float[Array, "2 S A"]
    """With the bonus and without."""
    action_mask: Bool[Array, " A"]
    state_mask: Bool[Array, " S"]


class MeanStdPlanner(eqx.Module):
    """Posterior mean plus ``scale`` posterior deviations, replanned at every step.

    Next states (and the end of the episode as one more outcome) have a Dirichlet prior, mean
    rewards a normal one. With n the Dirichlet's total count,
    ``Q = r_hat + gamma * p_hat V + scale * sqrt(Var[r_bar] + gamma^2 * Var_p_hat(V) / (n + 1))``:
    the last term is the posterior deviation of the one-step target for a given V. In the spirit of
    the variance-based bonus of Sorg, Singh & Lewis 2010; it needs no training.
    """

    scale: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """c, deviations of optimism."""
    gamma: Float[Array, ""] = eqx.field(converter=as_float, default=0.95)
    """Discount per step."""
    transition_prior: Float[Array, "*S"] = eqx.field(converter=as_float, default=1.0)
    """Dirichlet pseudo-count of each next state: a number or ``[S, A, S]``."""
    ending_prior: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)
    """Dirichlet pseudo-count of the end of the episode."""
    reward_mean: Float[Array, "*S"] = eqx.field(converter=as_float, default=0.0)
    """Prior mean reward: a number or ``[S, A]``."""
    reward_count: Float[Array, "*S"] = eqx.field(converter=as_float, default=1.0)
    """How many observed rewards the prior mean is worth."""
    reward_std: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """Deviation of one observed reward."""
    sweeps: int = eqx.field(static=True, default=4)
    """Bellman backups per step, starting from the values of the step before."""
    first_sweeps: int = eqx.field(static=True, default=100)
    """Backups before the first step."""

    def init(self, key: PRNGKey, spec: TaskSpec) -> MeanStdMemory:
        """Plan on the prior."""
        counts = no_counts(spec)
        q = jnp.zeros((2, *counts.reward_sum.shape))
        memory = MeanStdMemory(counts, q, spec.action_mask, spec.state_mask)
        return self._replan(memory, self.first_sweeps)

    def act(self, key: PRNGKey, memory: MeanStdMemory, state: Int[Array, ""]) -> Decision:
        """Greedy on the values with the bonus."""
        values, estimate = jnp.where(memory.action_mask, memory.q[:, state], NEVER)
        return Decision(epsilon_greedy(key, values, memory.action_mask), values, estimate)

    def update(self, key: PRNGKey, memory: MeanStdMemory, transition: Transition) -> MeanStdMemory:
        """Count, then a few backups."""
        memory = memory._replace(counts=count(memory.counts, transition))
        return self._replan(memory, self.sweeps)

    def _replan(self, memory: MeanStdMemory, sweeps: int) -> MeanStdMemory:
        counts = memory.counts
        onward = self.transition_prior * memory.state_mask + counts.arrivals - counts.endings
        total = onward.sum(-1) + self.ending_prior + counts.endings.sum(-1)
        rewards_seen = self.reward_count + counts.visits
        reward = (self.reward_count * self.reward_mean + counts.reward_sum) / rewards_seen
        model = Model(reward, onward / total[..., None], memory.action_mask)
        reward_variance = self.reward_std**2 / rewards_seen

        def sweep(q: Float[Array, "S A"], scale: Float[Array, ""]) -> Float[Array, "S A"]:
            values = jnp.where(memory.state_mask, greedy_values(q, memory.action_mask), 0.0)
            mean, square = jnp.moveaxis(model.onward @ jnp.stack([values, values**2], -1), -1, 0)
            value_variance = jnp.maximum(square - mean**2, 0.0) / (total + 1.0)
            spread = jnp.sqrt(reward_variance + self.gamma**2 * value_variance)
            return backup(model, values, self.gamma) + scale * spread

        scales = jnp.stack([self.scale, jnp.zeros_like(self.scale)])
        q = jax.lax.fori_loop(0, sweeps, lambda _, q: jax.vmap(sweep)(q, scales), memory.q)
        return memory._replace(q=q)
