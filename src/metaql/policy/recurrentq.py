"""RecurrentQ: a Q-network conditioned on a recurrent task embedding.

For families whose tasks share observation and action spaces, finite or continuous: what `BeliefQ` and
`FiniteQ` compute from counts is here learned, Q(o, a; z) with z the state of a `Reader` of all
transitions of the lifetime, and, where states are cells of a grid, a `Chart` of what was met where.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding.chart import Chart, blank_chart, charted, view_from, view_size
from metaql.embedding.embed import Clock
from metaql.embedding.recurrent import CLOCK_FACTS, Note, Reader, Sight, clock_facts, in_units
from metaql.types import Decision, Observation, PRNGKey, TaskSpec, Transition


class Context(NamedTuple):
    """Memory of RecurrentQ in one lifetime."""

    hidden: Float[Array, " H"]
    """The task embedding, learned."""
    clock: Clock
    spec: TaskSpec
    chart: Chart | None = None
    """The part of it that is not; None where states are not the cells of a grid."""


class Sizes(NamedTuple):
    """Of a `RecurrentQ`, and which of its variants it is."""

    hidden: int = 64
    """H, of the embedding."""
    width: int = 64
    """Of the Q-network's layers."""
    context: bool = True
    """False: the embedding stays empty, and all tasks are as one (multi-task Q-learning: a baseline)."""
    generated: bool = False
    """True: the embedding generates weights of the last layer (Ha et al. 2017, arXiv 1609.09106)."""


class QNetwork(eqx.Module):
    """Embedding, observation and time -> Q(o, .), layer-normalised throughout.

    Layer norm is what keeps Q-learning without a target network stable (Gallici et al. 2024,
    arXiv 2407.04811).
    """

    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    first_norm: eqx.nn.LayerNorm
    second: eqx.nn.Linear
    second_norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear
    generator: eqx.nn.Linear | None
    """From the embedding to the last layer's weights; None: they are the same in every task."""
    actions: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, key: PRNGKey, *, sight: int, actions: tuple[int, ...], sizes: Sizes) -> None:
        """Fresh weights."""
        hidden, width = sizes.hidden, sizes.width
        key_first, key_second, key_out = jax.random.split(key, 3)
        self.norm = eqx.nn.LayerNorm(hidden)
        self.first = eqx.nn.Linear(hidden + sight + CLOCK_FACTS, width, key=key_first)
        self.first_norm = eqx.nn.LayerNorm(width)
        self.second = eqx.nn.Linear(width, width, key=key_second)
        self.second_norm = eqx.nn.LayerNorm(width)
        count = math.prod(actions)
        self.out = eqx.nn.Linear(width, count, key=key_out)
        self.generator, self.actions = None, actions
        if sizes.generated:
            key_generator = jax.random.fold_in(key_out, 1)
            self.generator = eqx.nn.Linear(hidden, count * width, use_bias=False, key=key_generator)

    def __call__(
        self, hidden: Float[Array, " H"], seen: Float[Array, " D"], clock: Float[Array, " F"]
    ) -> Float[Array, "*K A"]:
        """Q of every action, of each of its parts."""
        z = self.norm(hidden)
        x = jax.nn.relu(self.first_norm(self.first(jnp.concatenate([z, seen, clock]))))
        x = jax.nn.relu(self.second_norm(self.second(x)))
        q = self.out(x)
        if self.generator is not None:
            q = q + self.generator(z).reshape(-1, x.shape[0]) @ x / math.sqrt(x.shape[0])
        return q.reshape(self.actions)


class RecurrentQ(eqx.Module):
    """Meta-learned Q-learner with function approximation; see `metaql.types.Learner`."""

    sight: Sight
    reader: Reader
    network: QNetwork
    unit: Float[Array, ""]
    """Largest reward met in meta-training: rewards are read in it. Not learned by gradients."""
    scale: Float[Array, ""]
    """Size of returns: the network predicts multiples of it. Not learned by gradients."""
    epsilon: Float[Array, ""]
    """Share of actions drawn at random: while meta-training, else 0."""
    sizes: Sizes = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKey,
        *,
        sight: Sight,
        actions: tuple[int, ...],
        sizes: Sizes,
    ) -> None:
        """Fresh weights.

        Args:
            key: of the weights.
            sight: of the family's observations.
            actions: ``(A,)``, or ``(K, A)`` where an action has K parts.
            sizes: of the networks.
        """
        key_reader, key_network = jax.random.split(key)
        self.sight = sight
        self.reader = Reader(
            key_reader, sight=sight.size, actions=math.prod(actions), hidden=sizes.hidden
        )
        self.sizes = sizes
        scene = sight.size + (view_size(sight.rows, sight.columns) if self.draws else 0)
        self.network = QNetwork(key_network, sight=scene, actions=actions, sizes=sizes)
        self.unit, self.scale, self.epsilon = jnp.zeros(()), jnp.ones(()), jnp.zeros(())

    @property
    def draws(self) -> bool:
        """Whether it keeps a chart."""
        return bool(self.sight.columns) and self.sizes.context

    def init(self, key: PRNGKey, spec: TaskSpec) -> Context:
        """An empty embedding at the start of a lifetime."""
        del key
        zero = jnp.zeros(())
        chart = blank_chart(self.sight.rows, self.sight.columns) if self.draws else None
        return Context(self.reader.blank(), Clock(zero, zero), spec, chart)

    def act(self, key: PRNGKey, memory: Context, state: Observation) -> Decision:
        """Greedy, or at random with probability ``epsilon``."""
        key_whether, key_action = jax.random.split(key)
        values = self.values(memory, state)
        possible = jnp.where(memory.spec.action_mask, 0.0, -jnp.inf)
        anything = jax.random.categorical(key_action, possible)
        explores = jax.random.uniform(key_whether) < self.epsilon
        action = jnp.where(explores, anything, values.argmax(-1)).astype(jnp.int32)
        return Decision(action, values, values)

    def update(self, key: PRNGKey, memory: Context, transition: Transition) -> Context:
        """Read one transition."""
        del key
        note = Note(transition, memory.clock)
        encoded = self.reader.encode(self.sight, note, memory.spec, self.unit)
        ended = transition.terminated | transition.truncated
        clock = Clock(jnp.where(ended, 0.0, memory.clock.step + 1.0), memory.clock.episode + ended)
        chart = self.chart_after(memory.chart, transition)
        return Context(self.advance(memory.hidden, encoded), clock, memory.spec, chart)

    def advance(self, hidden: Float[Array, " H"], encoded: Float[Array, " G"]) -> Array:
        """The embedding after reading one transition."""
        return self.reader.advance(hidden, encoded) if self.sizes.context else hidden

    def chart_after(self, chart: Chart | None, transition: Transition) -> Chart | None:
        """The chart with one transition put down, where there is one."""
        if chart is None:
            return None
        ended = transition.terminated | transition.truncated
        return charted(chart, transition.next_state, in_units(transition.reward, self.unit), ended)

    def scene(self, chart: Chart | None, state: Observation) -> Float[Array, " D"]:
        """What the network sees: the observation, and the chart from there."""
        seen = self.sight(state)
        return seen if chart is None else jnp.concatenate([seen, view_from(chart, state)])

    def values(self, memory: Context, state: Observation) -> Float[Array, "*K A"]:
        """Q(o, .): the discounted return of the rest of the lifetime; -inf at padded actions."""
        clock = clock_facts(memory.clock, memory.spec)
        q = self.scale * self.network(memory.hidden, self.scene(memory.chart, state), clock)
        return jnp.where(memory.spec.action_mask, q, -jnp.inf)

    def rescaled(self, scale: Float[Array, ""]) -> RecurrentQ:
        """The same values as multiples of another scale (van Hasselt et al. 2016, arXiv 1602.07714)."""
        factor = self.scale / scale
        last = (self.network.out, self.network.generator)
        last = jax.tree.map(lambda weight: factor * weight, last)
        network = eqx.tree_at(
            lambda n: (n.out, n.generator), self.network, last, is_leaf=lambda leaf: leaf is None
        )
        return eqx.tree_at(lambda q: (q.network, q.scale), self, (network, scale))
