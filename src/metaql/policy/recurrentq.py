"""RecurrentQ: a Q-network conditioned on a recurrent task embedding.

For families whose tasks share observation and action spaces, finite or continuous: what `BeliefQ` and
`FiniteQ` compute from counts is here learned, Q(o, a; z) with z the state of a `Reader` of all
transitions of the lifetime, and what adding up tells exactly beside it: where states are numbered, a `Chart`
of the grid whose cells they are, or a `Ledger`; of vectors, if asked for, the `Belief` of a `TaskModel`.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding.chart import Chart, blank_chart
from metaql.embedding.embed import Clock
from metaql.embedding.ledger import FACTS, Ledger, blank_ledger
from metaql.embedding.recurrent import Note, Reader, Sight, clock_facts, in_units
from metaql.embedding.regression import Belief, Rows, TaskModel
from metaql.policy.network import QNetwork, Sizes
from metaql.qlearning.schedules import epsilon_greedy
from metaql.types import Decision, Observation, PRNGKey, TaskSpec, Transition

Counted = Chart | Ledger | Belief
"""What is added up in a lifetime, beside what is learned of it."""


class Context(NamedTuple):
    """Memory of RecurrentQ in one lifetime."""

    hidden: Float[Array, " H"]
    """The task embedding, learned."""
    clock: Clock
    spec: TaskSpec
    counts: Counted | None = None
    """The part of it that is not; None where nothing is added up."""
    power: Float[Array, ""] | None = None
    """To which the share of random actions is raised in this episode; None: to none."""


def nothing_counted(
    sight: Sight, actions: tuple[int, ...], sizes: Sizes, model: TaskModel | None
) -> Counted | None:
    """What is added up, at the start of a lifetime."""
    if model is not None:
        return model.blank()
    if not sizes.context or not sight.numbers or len(actions) > 1:
        return None
    if sight.columns:
        return blank_chart(sight.rows, sight.columns)
    return blank_ledger(sight.numbers, math.prod(actions))


def counted_entries(blank: Counted | None) -> tuple[int, int]:
    """Entries of a view of what is added up, and how many facts of every action they are."""
    if blank is None:
        return 0, 0
    view = jax.eval_shape(lambda counts: counts.view(jnp.asarray(0)), blank)
    return view.size, FACTS if isinstance(blank, Ledger) else 0


def task_model(
    key: PRNGKey, sight: Sight, actions: tuple[int, ...], sizes: Sizes
) -> TaskModel | None:
    """Where observations are vectors and features are asked for."""
    if sight.numbers or not sizes.context or not sizes.features:
        return None
    options = math.prod(actions)
    return TaskModel(key, entries=sight.size, actions=options, features=sizes.features)


class RecurrentQ(eqx.Module):
    """Meta-learned Q-learner with function approximation; see `metaql.types.Learner`."""

    sight: Sight
    reader: Reader
    model: TaskModel | None
    network: QNetwork
    unit: Float[Array, ""]
    """Largest reward met in meta-training: rewards are read in it. Not learned by gradients."""
    scale: Float[Array, ""]
    """Size of returns: the network predicts multiples of it. Not learned by gradients."""
    epsilon: Float[Array, ""]
    """Share of actions drawn at random: while meta-training, else 0."""
    sizes: Sizes = eqx.field(static=True)
    epsilon_spread: float = eqx.field(static=True)
    """Every episode raises that share to a power drawn from 1 to 1 + ``epsilon_spread``."""

    def __init__(
        self,
        key: PRNGKey,
        *,
        sight: Sight,
        actions: tuple[int, ...],
        sizes: Sizes,
        epsilon_spread: float = 0.0,
    ) -> None:
        """Fresh weights.

        Args:
            key: of the weights.
            sight: of the family's observations.
            actions: ``(A,)``, or ``(K, A)`` where an action has K parts.
            sizes: of the networks.
            epsilon_spread: of the share of random actions between episodes.
        """
        key_reader, key_network = jax.random.split(key)
        self.sight = sight
        self.reader = Reader(
            key_reader, sight=sight.size, actions=math.prod(actions), hidden=sizes.hidden
        )
        self.sizes, self.epsilon_spread = sizes, epsilon_spread
        self.model = task_model(jax.random.fold_in(key, 2), sight, actions, sizes)
        counted, facts = counted_entries(nothing_counted(sight, actions, sizes, self.model))
        self.network = QNetwork(
            key_network, sight=sight.size + counted, facts=facts, actions=actions, sizes=sizes
        )
        self.unit, self.scale, self.epsilon = jnp.zeros(()), jnp.ones(()), jnp.zeros(())

    def init(self, key: PRNGKey, spec: TaskSpec) -> Context:
        """An empty embedding at the start of a lifetime."""
        zero = jnp.zeros(())
        counts = nothing_counted(self.sight, self.network.actions, self.sizes, self.model)
        power = self.power(key) if self.epsilon_spread else None
        return Context(self.reader.blank(), Clock(zero, zero), spec, counts, power)

    def power(self, key: PRNGKey) -> Float[Array, ""]:
        """For one episode: some explore much and others hardly, side by side.

        So a careful second episode follows upon reckless first ones of all kinds, and the worth of a first
        one is not that of what randomness leaves of the second. Horgan et al. 2018 (arXiv 1803.00933,
        section 4) divide actors so, of whom each keeps its own.
        """
        return 1.0 + self.epsilon_spread * jax.random.uniform(key)

    def act(self, key: PRNGKey, memory: Context, state: Observation) -> Decision:
        """Greedy, or at random with probability ``epsilon``: every part of an action by itself."""
        values = self.values(memory, state)
        share = self.epsilon if memory.power is None else self.epsilon**memory.power
        action = epsilon_greedy(key, values, memory.spec.action_mask, share)
        return Decision(action, values, values)

    def update(self, key: PRNGKey, memory: Context, transition: Transition) -> Context:
        """Read one transition."""
        note = Note(transition, memory.clock)
        encoded = self.reader.encode(self.sight, note, memory.spec, self.unit)
        ended = transition.terminated | transition.truncated
        clock = Clock(jnp.where(ended, 0.0, memory.clock.step + 1.0), memory.clock.episode + ended)
        counts = self.counted(memory.counts, transition)
        power = memory.power
        if power is not None:
            power = jnp.where(ended, self.power(key), power)
        return Context(self.advance(memory.hidden, encoded), clock, memory.spec, counts, power)

    def advance(self, hidden: Float[Array, " H"], encoded: Float[Array, " G"]) -> Array:
        """The embedding after reading one transition."""
        return self.reader.advance(hidden, encoded) if self.sizes.context else hidden

    def counted(self, counts: Counted | None, transition: Transition) -> Counted | None:
        """What is added up, with one transition more; None where nothing is."""
        if counts is None:
            return None
        if isinstance(counts, Belief):
            return counts.after(self.rows(transition))
        reward = in_units(transition.reward, self.unit)
        return counts.after(transition._replace(reward=reward))

    def rows(self, transition: Transition) -> Rows:
        """What a transition says of the task to its model, which there must be."""
        model = cast(TaskModel, self.model)
        return model.rows(self.sight, transition, self.network.actions[-1], self.unit)

    def scene(self, state: Observation, counts: Counted | None) -> Float[Array, " D"]:
        """What the network sees: the observation, and what was added up, from there."""
        seen = self.sight(state)
        return seen if counts is None else jnp.concatenate([seen, counts.view(state)])

    def values(self, memory: Context, state: Observation) -> Float[Array, "*K A"]:
        """Q(o, .): the discounted return of the rest of the lifetime; -inf at padded actions."""
        clock = clock_facts(memory.clock, memory.spec)
        q = self.scale * self.network(memory.hidden, self.scene(state, memory.counts), clock)
        return jnp.where(memory.spec.action_mask, q, -jnp.inf)

    def rescaled(self, scale: Float[Array, ""]) -> RecurrentQ:
        """The same values as multiples of another scale (van Hasselt et al. 2016, arXiv 1602.07714)."""
        network = self.network.times(self.scale / scale)
        return eqx.tree_at(lambda q: (q.network, q.scale), self, (network, scale))
