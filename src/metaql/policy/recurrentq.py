"""RecurrentQ: a Q-network conditioned on a recurrent task embedding.

For families whose tasks share observation and action spaces, finite or continuous: what `BeliefQ` and
`FiniteQ` compute from counts is here learned, Q(o, a; z) with z the state of a `Reader` of all
transitions of the lifetime.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding.embed import Clock
from metaql.embedding.recurrent import CLOCK_FACTS, Note, Reader, Sight, clock_facts
from metaql.types import Decision, Observation, PRNGKey, TaskSpec, Transition


class Context(NamedTuple):
    """Memory of RecurrentQ in one lifetime."""

    hidden: Float[Array, " H"]
    """The task embedding."""
    clock: Clock
    spec: TaskSpec


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

    def __init__(self, key: PRNGKey, *, sight: int, actions: int, hidden: int, width: int) -> None:
        """Fresh weights, ``width`` units per layer."""
        key_first, key_second, key_out = jax.random.split(key, 3)
        self.norm = eqx.nn.LayerNorm(hidden)
        self.first = eqx.nn.Linear(hidden + sight + CLOCK_FACTS, width, key=key_first)
        self.first_norm = eqx.nn.LayerNorm(width)
        self.second = eqx.nn.Linear(width, width, key=key_second)
        self.second_norm = eqx.nn.LayerNorm(width)
        self.out = eqx.nn.Linear(width, actions, key=key_out)

    def __call__(
        self, hidden: Float[Array, " H"], seen: Float[Array, " D"], clock: Float[Array, " F"]
    ) -> Float[Array, " A"]:
        """Q of every action."""
        x = jnp.concatenate([self.norm(hidden), seen, clock])
        x = jax.nn.relu(self.first_norm(self.first(x)))
        x = jax.nn.relu(self.second_norm(self.second(x)))
        return self.out(x)


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

    def __init__(
        self, key: PRNGKey, *, sight: Sight, actions: int, hidden: int = 64, width: int = 64
    ) -> None:
        """Fresh weights.

        Args:
            key: of the weights.
            sight: of the family's observations.
            actions: A.
            hidden: H, size of the embedding.
            width: of the Q-network's layers.
        """
        key_reader, key_network = jax.random.split(key)
        self.sight = sight
        self.reader = Reader(key_reader, sight=sight.size, actions=actions, hidden=hidden)
        self.network = QNetwork(
            key_network, sight=sight.size, actions=actions, hidden=hidden, width=width
        )
        self.unit, self.scale, self.epsilon = jnp.zeros(()), jnp.ones(()), jnp.zeros(())

    def init(self, key: PRNGKey, spec: TaskSpec) -> Context:
        """An empty embedding at the start of a lifetime."""
        del key
        zero = jnp.zeros(())
        return Context(self.reader.blank(), Clock(zero, zero), spec)

    def act(self, key: PRNGKey, memory: Context, state: Observation) -> Decision:
        """Greedy, or at random with probability ``epsilon``."""
        key_whether, key_action = jax.random.split(key)
        values = self.values(memory, state)
        possible = jnp.where(memory.spec.action_mask, 0.0, -jnp.inf)
        anything = jax.random.categorical(key_action, possible)
        explores = jax.random.uniform(key_whether) < self.epsilon
        action = jnp.where(explores, anything, values.argmax()).astype(jnp.int32)
        return Decision(action, values, values)

    def update(self, key: PRNGKey, memory: Context, transition: Transition) -> Context:
        """Read one transition."""
        del key
        note = Note(transition, memory.clock)
        encoded = self.reader.encode(self.sight, note, memory.spec, self.unit)
        ended = transition.terminated | transition.truncated
        clock = Clock(jnp.where(ended, 0.0, memory.clock.step + 1.0), memory.clock.episode + ended)
        return Context(self.reader.advance(memory.hidden, encoded), clock, memory.spec)

    def values(self, memory: Context, state: Observation) -> Float[Array, " A"]:
        """Q(o, .): the discounted return of the rest of the lifetime; -inf at padded actions."""
        clock = clock_facts(memory.clock, memory.spec)
        q = self.scale * self.network(memory.hidden, self.sight(state), clock)
        return jnp.where(memory.spec.action_mask, q, -jnp.inf)

    def rescaled(self, scale: Float[Array, ""]) -> RecurrentQ:
        """The same values as multiples of another scale (van Hasselt et al. 2016, arXiv 1602.07714)."""
        layer, factor = self.network.out, self.scale / scale
        return eqx.tree_at(
            lambda q: (q.network.out.weight, q.network.out.bias, q.scale),
            self,
            (factor * layer.weight, factor * jnp.asarray(layer.bias), scale),
        )
