"""The Q-network of RecurrentQ: embedding, what is seen and time -> Q of every action."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding.recurrent import CLOCK_FACTS
from metaql.types import PRNGKey


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
    features: int = 0
    """On which what is believed of a task is a regression, where observations are vectors; 0: none."""


class ActionHead(eqx.Module):
    """What was counted of one action -> its share of Q: a sum of the facts, weighed as the embedding says.

    Mean plus c deviations, say, with a c of the task and the time that are left. The weights are the same for
    all actions: relabelling them relabels the output (Zaheer et al. 2017, "Deep Sets", arXiv 1703.06114,
    section 2.2), and what a high mean is worth is not learned for every action anew.
    """

    weigh: eqx.nn.Linear
    facts: int = eqx.field(static=True)
    """F, of every action."""

    def __init__(self, key: PRNGKey, *, width: int, facts: int) -> None:
        """Fresh weights."""
        self.weigh = eqx.nn.Linear(width, facts, key=key)
        self.facts = facts

    def __call__(self, x: Float[Array, " W"], facts: Float[Array, "F A"]) -> Float[Array, " A"]:
        """For every action, in the light of what is the same for all of them."""
        return self.weigh(x) @ facts


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
    each: ActionHead | None
    """What was counted of an action speaks for it; None where nothing was."""
    generator: eqx.nn.Linear | None
    """From the embedding to the last layer's weights; None: they are the same in every task."""
    actions: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, key: PRNGKey, *, sight: int, facts: int, actions: tuple[int, ...], sizes: Sizes
    ) -> None:
        """Fresh weights.

        Args:
            key: of the weights.
            sight: entries of what is seen.
            facts: how many of them, the last ones, are of every single action: row by row, ``[facts, A]``.
            actions: as in `RecurrentQ`.
            sizes: of the networks.
        """
        hidden, width = sizes.hidden, sizes.width
        key_first, key_second, key_out = jax.random.split(key, 3)
        self.norm = eqx.nn.LayerNorm(hidden)
        self.first = eqx.nn.Linear(hidden + sight + CLOCK_FACTS, width, key=key_first)
        self.first_norm = eqx.nn.LayerNorm(width)
        self.second = eqx.nn.Linear(width, width, key=key_second)
        self.second_norm = eqx.nn.LayerNorm(width)
        count = math.prod(actions)
        self.out = eqx.nn.Linear(width, count, key=key_out)
        self.each, self.generator, self.actions = None, None, actions
        if facts:
            self.each = ActionHead(jax.random.fold_in(key_out, 2), width=width, facts=facts)
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
        if self.each is not None:
            q = q + self.each(x, seen[-self.each.facts * q.shape[0] :].reshape(self.each.facts, -1))
        if self.generator is not None:
            q = q + self.generator(z).reshape(-1, x.shape[0]) @ x / math.sqrt(x.shape[0])
        return q.reshape(self.actions)

    def times(self, factor: Float[Array, ""]) -> QNetwork:
        """The network whose values are so many times as large."""

        def last(network: QNetwork) -> list[Any]:
            found: list[Any] = [network.out]
            if self.generator is not None:
                found.append(network.generator)
            if self.each is not None:
                found.append(cast(ActionHead, network.each).weigh)
            return found

        return eqx.tree_at(last, self, jax.tree.map(lambda weight: factor * weight, last(self)))
