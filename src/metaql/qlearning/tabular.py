"""Tabular Q-learning and its two classic relatives, as learners (`metaql.types.Learner`)."""

from __future__ import annotations

import abc
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.qlearning.schedules import Constant, Harmonic, Schedule, as_float, epsilon_greedy
from metaql.qlearning.td import discount_after, double_q_target, q_target, watkins_traces
from metaql.tasks.exact import NEVER
from metaql.types import Decision, PRNGKey, TaskSpec, Transition


class QMemory(NamedTuple):
    """What a tabular agent knows."""

    q: Float[Array, "S A"]
    visits: Int[Array, "S A"]
    episodes: Int[Array, ""]
    """Episodes finished."""
    action_mask: Bool[Array, " A"]


class DoubleQMemory(NamedTuple):
    """`QMemory` with two tables; ``visits`` counts the updates of each."""

    q: Float[Array, "2 S A"]
    visits: Int[Array, "2 S A"]
    episodes: Int[Array, ""]
    action_mask: Bool[Array, " A"]


class TraceMemory(NamedTuple):
    """`QMemory` with eligibility traces of the current episode."""

    q: Float[Array, "S A"]
    visits: Int[Array, "S A"]
    episodes: Int[Array, ""]
    action_mask: Bool[Array, " A"]
    traces: Float[Array, "S A"]


class TabularLearner(eqx.Module):
    """What the tabular agents share: hyper-parameters and epsilon-greedy acting."""

    gamma: Float[Array, ""] = eqx.field(converter=as_float, default=0.99)
    """Discount per step."""
    step_size: Schedule = eqx.field(default_factory=lambda: Constant(0.1))
    """Of the n-th update of a pair, n = 1, 2, ..."""
    epsilon: Schedule = eqx.field(default_factory=lambda: Constant(0.1))
    """Probability of a random action, as a function of what ``explore_by`` counts."""
    initial_value: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)
    """Every Q before the first update: above any reachable return, it is optimism."""
    explore_by: Literal["episodes", "visits"] = eqx.field(static=True, default="episodes")
    """What ``epsilon`` is a function of: episodes finished or visits of the present state."""

    @abc.abstractmethod
    def table(self, memory: Any) -> Float[Array, "S A"]:
        """Q as the agent believes it; its greedy policy is what has been learned."""

    def act(self, key: PRNGKey, memory: Any, state: Int[Array, ""]) -> Decision:
        """Epsilon-greedy on the table; equals are drawn at random."""
        values = jnp.where(memory.action_mask, self.table(memory)[state], NEVER)
        by_visits = self.explore_by == "visits"
        count = memory.visits[..., state, :].sum() if by_visits else memory.episodes
        action = epsilon_greedy(key, values, memory.action_mask, self.epsilon(count))
        return Decision(action, values, values)

    def _blank(self, spec: TaskSpec, *lead: int) -> tuple[Array, Array, Array, Array]:
        """``q, visits, episodes, action_mask`` before the first step."""
        shape = (*lead, spec.state_mask.shape[0], spec.action_mask.shape[0])
        q = jnp.full(shape, self.initial_value)
        return q, jnp.zeros(shape, jnp.int32), jnp.zeros((), jnp.int32), spec.action_mask


class QLearning(TabularLearner):
    """Q-learning (Watkins 1989).

    ``Q(s, a) += alpha * (r + gamma * max_a' Q(s', a') - Q(s, a))``.
    """

    def init(self, key: PRNGKey, spec: TaskSpec) -> QMemory:
        """Every value at ``initial_value``."""
        return QMemory(*self._blank(spec))

    def table(self, memory: QMemory) -> Float[Array, "S A"]:
        """Q."""
        return memory.q

    def update(self, key: PRNGKey, memory: QMemory, transition: Transition) -> QMemory:
        """One step towards `q_target`. Truncation bootstraps, termination does not."""
        at = (transition.state, transition.action)
        visits = memory.visits.at[at].add(1)
        discount = discount_after(self.gamma, transition.terminated)
        q_t = memory.q[transition.next_state]
        error = q_target(transition.reward, discount, q_t, memory.action_mask) - memory.q[at]
        q = memory.q.at[at].add(self.step_size(visits[at]) * error)
        return QMemory(q, visits, _episodes_after(memory.episodes, transition), memory.action_mask)


class DoubleQLearning(TabularLearner):
    """Double Q-learning (van Hasselt 2010): a coin says which table learns from the other."""

    def init(self, key: PRNGKey, spec: TaskSpec) -> DoubleQMemory:
        """Both tables at ``initial_value``."""
        return DoubleQMemory(*self._blank(spec, 2))

    def table(self, memory: DoubleQMemory) -> Float[Array, "S A"]:
        """Mean of the two tables."""
        return memory.q.mean(0)

    def update(self, key: PRNGKey, memory: DoubleQMemory, transition: Transition) -> DoubleQMemory:
        """One step of one table towards `double_q_target`."""
        learns = jax.random.bernoulli(key).astype(jnp.int32)
        at = (learns, transition.state, transition.action)
        visits = memory.visits.at[at].add(1)
        target = double_q_target(
            transition.reward,
            discount_after(self.gamma, transition.terminated),
            q_t_value=memory.q[1 - learns, transition.next_state],
            q_t_select=memory.q[learns, transition.next_state],
            action_mask=memory.action_mask,
        )
        q = memory.q.at[at].add(self.step_size(visits[at]) * (target - memory.q[at]))
        episodes = _episodes_after(memory.episodes, transition)
        return DoubleQMemory(q, visits, episodes, memory.action_mask)


class QLambda(TabularLearner):
    """Watkins's Q(lambda): an error reaches every pair that led to it (see `watkins_traces`)."""

    trace: Float[Array, ""] = eqx.field(converter=as_float, default=0.9)
    """lambda, the share of a trace that survives a greedy step."""

    def init(self, key: PRNGKey, spec: TaskSpec) -> TraceMemory:
        """Every value at ``initial_value``, no traces."""
        blank = self._blank(spec)
        return TraceMemory(*blank, traces=jnp.zeros_like(blank[0]))

    def table(self, memory: TraceMemory) -> Float[Array, "S A"]:
        """Q."""
        return memory.q

    def update(self, key: PRNGKey, memory: TraceMemory, transition: Transition) -> TraceMemory:
        """Spread the one-step error over the traces; they end with the episode, however it ends."""
        at = (transition.state, transition.action)
        visits = memory.visits.at[at].add(1)
        row = jnp.where(memory.action_mask, memory.q[transition.state], NEVER)
        was_greedy = row[transition.action] >= row.max()
        traces = watkins_traces(memory.traces, *at, was_greedy, self.gamma * self.trace)
        discount = discount_after(self.gamma, transition.terminated)
        q_t = memory.q[transition.next_state]
        error = q_target(transition.reward, discount, q_t, memory.action_mask) - memory.q[at]
        return TraceMemory(
            q=memory.q + self.step_size(visits[at]) * error * traces,
            visits=visits,
            episodes=_episodes_after(memory.episodes, transition),
            action_mask=memory.action_mask,
            traces=jnp.where(transition.terminated | transition.truncated, 0.0, traces),
        )


def _episodes_after(episodes: Int[Array, ""], transition: Transition) -> Int[Array, ""]:
    ended = transition.terminated | transition.truncated
    return episodes + ended.astype(episodes.dtype)


def tuned_optimistic(unit: float = 1.0) -> QLearning:
    """Q-learning with an optimistic start, tuned on validation lakes (rewards in [0, 1]).

    `benchmarks/tune_qlearning.py` makes the choice again.

    Args:
        unit: the largest reward there is.
    """
    return QLearning(
        gamma=0.99, step_size=Harmonic(10.0), epsilon=Constant(0.0), initial_value=0.5 * unit
    )
