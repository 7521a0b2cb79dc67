"""Chains in the manner of RiverSwim: a small reward at hand, a large one upstream.

RiverSwim is from Strehl and Littman 2008 (An analysis of model-based interval estimation for Markov
decision processes, JCSS 74); Osband, Russo and Van Roy 2013 (arXiv 1306.0940) use six states. Here
length, current and small reward differ from task to task, and which action swims is drawn anew for
every state, so that no rule like "always action 1" carries over. At both ends the move that is not
possible stays where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.errors import ConfigError
from metaql.tasks.families.base import Family, split_key
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

STEPS_PER_STATE = 4
"""Default episode: this many steps for every state of the chain."""


class River(eqx.Module):
    """What one chain is made of (all scalars but the labels)."""

    length: Int[Array, ""]
    advance: Float[Array, ""]
    """Probability that swimming moves one state up."""
    back: Float[Array, ""]
    """Probability that swimming loses one state."""
    small: Float[Array, ""]
    """Reward of drifting in state 0; swimming in the last state earns 1."""
    swims_first: Bool[Array, " S"]
    """True: action 0 swims and action 1 drifts in this state."""


class Chain(Family):
    """RiverSwim of random length, current and action labels."""

    name: ClassVar[str] = "chain"
    summary: ClassVar[str] = "RiverSwim: swim upstream for the large reward; labels are shuffled"
    baselines: ClassVar[Mapping[str, float]] = {"random": 0.55, "optimum": 13.4}

    min_length: int = eqx.field(static=True)
    max_length: int = eqx.field(static=True)
    advance: tuple[float, float] = eqx.field(static=True)
    back: tuple[float, float] = eqx.field(static=True)
    small: tuple[float, float] = eqx.field(static=True)
    horizon: int | None = eqx.field(static=True)

    def __init__(
        self,
        min_length: int = 4,
        max_length: int = 10,
        *,
        advance: tuple[float, float] = (0.3, 0.8),
        back: tuple[float, float] = (0.0, 0.1),
        small: tuple[float, float] = (0.005, 0.1),
        horizon: int | None = None,
    ) -> None:
        """Choose the ranges that tasks are drawn from, uniformly.

        Args:
            min_length: states of the shortest chain, at least 2.
            max_length: states of the longest; shorter ones are padded to it.
            advance: range of the probability that swimming moves up.
            back: range of the probability that swimming loses a state.
            small: range of the reward at the near end.
            horizon: steps per episode; default 4 for every state of the task.

        Raises:
            ConfigError: an argument out of range.
        """
        if not 2 <= min_length <= max_length or (horizon is not None and horizon < 1):
            raise ConfigError(
                "`chain` needs 2 <= min_length <= max_length and horizon >= 1.",
                f"Got min_length={min_length}, max_length={max_length}, horizon={horizon}.",
            )
        # A range of one value would let two splits draw the same chain.
        ordered = all(len(pair) == 2 and pair[0] < pair[1] for pair in (advance, back, small))
        if not ordered or min(advance[0], back[0]) < 0 or advance[1] + back[1] > 1:
            raise ConfigError(
                "`chain` needs ranges (low, high) with low < high, probabilities >= 0 and"
                " advance + back <= 1.",
                f"Got advance={advance}, back={back}, small={small}.",
            )
        self.min_length, self.max_length, self.horizon = min_length, max_length, horizon
        # Tuples also where a config file gave lists: static fields must be hashable.
        self.advance = (advance[0], advance[1])
        self.back = (back[0], back[1])
        self.small = (small[0], small[1])

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one chain; its probabilities are continuous, so no two draws agree."""
        # One draw for everything: each call of the generator costs compile time.
        numbers = jax.random.uniform(split_key(key, split), (4 + self.max_length,))
        low, high = jnp.asarray([self.advance, self.back, self.small]).T
        advance, back, small = low + (high - low) * numbers[:3]
        choices = self.max_length - self.min_length + 1
        river = River(
            length=self.min_length + jnp.floor(numbers[3] * choices).astype(jnp.int32),
            advance=advance,
            back=back,
            small=small,
            swims_first=numbers[4:] < 0.5,
        )
        return river_task(river, self.horizon)

    @classmethod
    def toy(cls) -> Chain:
        """Three to five states."""
        return cls(min_length=3, max_length=5)


def river_task(river: River, horizon: int | None) -> FiniteTask:
    """The finite task of one river, padded to the length of its labels."""
    state = jnp.arange(river.swims_first.shape[0])
    last = river.length - 1
    real = state <= last
    here, down = _one_hot(state), _one_hot(jnp.maximum(state - 1, 0))
    up = _one_hot(jnp.minimum(state + 1, last))
    swim = river.advance * up + river.back * down
    swim = swim + (1.0 - river.advance - river.back) * here
    near = river.small * jnp.outer(state == 0, state == 0)
    far = jnp.outer(state == last, state == last).astype(jnp.float32)
    label = river.swims_first[:, None, None]
    flow = jnp.where(label, jnp.stack([swim, down], 1), jnp.stack([down, swim], 1))
    gain = jnp.where(label, jnp.stack([far, near], 1), jnp.stack([near, far], 1))
    steps = STEPS_PER_STATE * river.length if horizon is None else horizon
    return FiniteTask(
        transition=jnp.where(real[:, None, None], flow, here[:, None, :]),
        reward=gain,
        termination=jnp.zeros_like(flow),
        initial=(state == 0).astype(jnp.float32),
        horizon=jnp.asarray(steps, jnp.int32),
        reward_noise=jnp.zeros(()),
        reward_binary=jnp.asarray(False),
        state_mask=real,
        action_mask=jnp.ones(2, bool),
    )


def _one_hot(target: Int[Array, " S"]) -> Float[Array, "S S"]:
    return jax.nn.one_hot(target, target.shape[0])
