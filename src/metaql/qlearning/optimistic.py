"""Optimism as a baseline: UCBVI, posterior mean plus deviations, exploration bonus, UCRL2."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.qlearning.planning import (
    Clock,
    ConjugatePrior,
    Counts,
    EpisodePlanner,
    Plan,
    act_on_plan,
    count,
    no_counts,
    plan_every_step,
    start_clock,
    steps_left,
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
    """Counts, two value tables, and where in the episode the agent is."""

    counts: Counts
    q: Float[Array, "2 S A"]
    """With the bonus and without."""
    clock: Clock


class MeanStdPlanner(ConjugatePrior):
    """Posterior mean plus ``scale`` posterior deviations, replanned at every step.

    Next states (and the end of the episode as one more outcome) have a Dirichlet prior, mean
    rewards a normal one. With n the Dirichlet's total count,
    ``Q = r_hat + gamma * p_hat V + scale * sqrt(Var[r_bar] + gamma^2 * Var_p_hat(V) / (n + 1))``:
    the last term is the posterior deviation of the one-step target for a given V. In the spirit of
    the variance-based bonus of Sorg, Singh & Lewis 2010; it needs no training.

    Without ``horizon`` V is that of a stationary policy, kept warm from step to step; with it V is
    planned by backward induction over exactly the steps left in the episode.
    """

    scale: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """c, deviations of optimism."""
    gamma: Float[Array, ""] = eqx.field(converter=as_float, default=0.95)
    """Discount per step."""
    reward_std: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """Deviation of one observed reward."""
    sweeps: int = eqx.field(static=True, default=4)
    """Bellman backups per step, starting from the values of the step before."""
    first_sweeps: int = eqx.field(static=True, default=100)
    """Backups before the first step."""
    horizon: int | None = eqx.field(static=True, default=None)
    """Longest plan over the steps left; None: a stationary plan of so many ``sweeps``."""

    def init(self, key: PRNGKey, spec: TaskSpec) -> MeanStdMemory:
        """Plan on the prior."""
        counts = no_counts(spec)
        q = jnp.zeros((2, *counts.reward_sum.shape))
        return self._replan(MeanStdMemory(counts, q, start_clock(spec)), self.first_sweeps)

    def act(self, key: PRNGKey, memory: MeanStdMemory, state: Int[Array, ""]) -> Decision:
        """Greedy on the values with the bonus."""
        mask = memory.clock.action_mask
        values, estimate = jnp.where(mask, memory.q[:, state], NEVER)
        return Decision(epsilon_greedy(key, values, mask), values, estimate)

    def update(self, key: PRNGKey, memory: MeanStdMemory, transition: Transition) -> MeanStdMemory:
        """Count, then plan for the next step."""
        counts = count(memory.counts, transition)
        clock, _ = tick(memory.clock, transition)
        return self._replan(MeanStdMemory(counts, memory.q, clock), self.sweeps)

    def _replan(self, memory: MeanStdMemory, sweeps: int) -> MeanStdMemory:
        clock = memory.clock
        model, total, rewards_seen = self.posterior(memory.counts, clock)
        reward_variance = self.reward_std**2 / rewards_seen

        def sweep(q: Float[Array, "S A"], scale: Float[Array, ""]) -> Float[Array, "S A"]:
            values = jnp.where(clock.state_mask, greedy_values(q, clock.action_mask), 0.0)
            mean, square = jnp.moveaxis(model.onward @ jnp.stack([values, values**2], -1), -1, 0)
            value_variance = jnp.maximum(square - mean**2, 0.0) / (total + 1.0)
            spread = jnp.sqrt(reward_variance + self.gamma**2 * value_variance)
            return backup(model, values, self.gamma) + scale * spread

        start, backups = memory.q, jnp.asarray(sweeps)
        if self.horizon is not None:
            start, backups = jnp.zeros_like(memory.q), jnp.clip(steps_left(clock), 1, self.horizon)
        scales = jnp.stack([self.scale, jnp.zeros_like(self.scale)])
        q = jax.lax.fori_loop(0, backups, lambda _, q: jax.vmap(sweep)(q, scales), start)
        return memory._replace(q=q)


class BEB(EpisodePlanner, ConjugatePrior):
    """Bayesian exploration bonus (Kolter & Ng 2009, Near-Bayesian exploration in polynomial time).

    Before every episode, backward induction on the posterior's mean with a bonus that shrinks with
    the counts and not with their root. Theirs is ``beta / (1 + n)``, n the Dirichlet's total count,
    for rewards that are known; this is the form of Osband's TabulaRL, which gave the figures of
    Duan et al. 2016 (arXiv 1611.02779): with h steps to come after this one,
    ``Q_h = r_hat + 1 / (1 + n_r) + beta * h / (1 + n) + p_hat V_{h-1}``.
    """

    beta: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    """What an unknown transition may add to every step to come."""

    def plan(self, key: PRNGKey, counts: Counts, clock: Clock) -> Plan:
        """The plan with the bonus and the plan without."""
        model, total, rewards_seen = self.posterior(counts, clock)
        to_come = jnp.arange(self.horizon, dtype=jnp.float32)[:, None, None]
        bonus = 1.0 / (1.0 + rewards_seen) + self.beta * to_come / (1.0 + total)
        bonuses = jnp.stack([bonus, jnp.zeros_like(bonus)])
        return Plan(*jax.vmap(lambda b: plan_every_step(model, self.horizon, b))(bonuses))


class UCRL2(EpisodePlanner):
    """Optimism over confidence sets (Jaksch, Ortner & Auer 2010), for episodes of finite length.

    Before every episode the best task among those with ``|r - r_hat| <= d_r`` and
    ``|p - p_hat|_1 <= d_p`` is planned for by extended backward induction (their figure 2), with
    ``d_r = reward_scale * sqrt(7 ln(2 S A t / delta) / (2 n))`` and
    ``d_p = transition_scale * sqrt(14 S ln(2 A t / delta) / n)``, t steps so far and n tries, both
    at least 1. A pair never tried leads to every state alike and pays 0. The end of the episode is
    one more outcome, worth 0. The paper has both scales at 1, far more than pays in practice.
    """

    reward_scale: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    transition_scale: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    failure: Float[Array, ""] = eqx.field(converter=as_float, default=0.05)
    """delta, the probability with which the sets may fail."""

    def plan(self, key: PRNGKey, counts: Counts, clock: Clock) -> Plan:
        """The plan of the most optimistic task and that of the empirical one."""
        tries = jnp.maximum(counts.visits, 1.0)
        num_states = clock.state_mask.sum()
        uniform = jnp.append(clock.state_mask / num_states, 0.0)
        ended = counts.endings.sum(-1, keepdims=True)
        outcomes = jnp.concatenate([counts.arrivals - counts.endings, ended], -1)
        outcomes = jnp.where(counts.visits[..., None] > 0, outcomes / tries[..., None], uniform)
        model = Model(counts.reward_sum / tries, outcomes[..., :-1], clock.action_mask)
        num_actions = clock.action_mask.sum()
        steps = jnp.maximum(counts.visits.sum(), 1.0)
        log_r = jnp.log(2.0 * num_states * num_actions * steps / self.failure)
        log_p = jnp.log(2.0 * num_actions * steps / self.failure)
        width_r = self.reward_scale * jnp.sqrt(3.5 * log_r / tries)
        width_p = self.transition_scale * jnp.sqrt(14.0 * num_states * log_p / tries)
        exists = jnp.append(clock.state_mask, True)

        def sweep(q: Float[Array, "S A"], _: None) -> tuple[Array, Array]:
            values = jnp.append(greedy_values(q, clock.action_mask), 0.0)
            q = model.reward + width_r + optimistic_value(outcomes, values, width_p, exists)
            return q, q

        acting = jax.lax.scan(sweep, jnp.zeros_like(tries), length=self.horizon)[1]
        return Plan(acting, plan_every_step(model, self.horizon))


def optimistic_value(
    probabilities: Float[Array, "*lead K"],
    values: Float[Array, " K"],
    width: Float[Array, "*lead"],
    exists: Bool[Array, " K"],
) -> Float[Array, "*lead"]:
    """``max p' . values`` over distributions with ``|p' - p|_1 <= width`` (Jaksch et al., figure 2).

    The best outcome gains up to ``width / 2``, taken from the worst ones first.
    """
    order = jnp.argsort(jnp.where(exists, values, NEVER))
    p = probabilities[..., order]
    gain = jnp.minimum(width / 2.0, 1.0 - p[..., -1])
    # What is gained is at most the rest of the row, so nothing is taken from the best itself.
    taken = jnp.clip(gain[..., None] - (jnp.cumsum(p, -1) - p), 0.0, p)
    ranked = jnp.where(exists, values, 0.0)[order]
    return (p - taken) @ ranked + gain * ranked[-1]
