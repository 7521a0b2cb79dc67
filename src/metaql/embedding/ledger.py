"""What was tried in which state and what it paid: what needs no learning where states are numbered.

Counts and means are all there is to know of the arms of a bandit, and no recurrent state learns to keep
fifty of them as exactly as adding up does. Of many states the ledger shows the one that one is in.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.types import Transition


class Ledger(NamedTuple):
    """Of one lifetime, S states with A actions."""

    visits: Float[Array, "S A"]
    """How often."""
    reward: Float[Array, "S A"]
    """Sum of rewards."""

    def after(self, seen: Transition) -> Ledger:
        """With one transition entered, its reward in units of the largest."""
        states, actions = self.visits.shape
        state = (jnp.arange(states) == seen.state)[:, None]
        here = state & (jnp.arange(actions) == seen.action)
        return Ledger(self.visits + here, self.reward + here * seen.reward)

    def view(self, state: Int[Array, ""]) -> Float[Array, " V"]:
        """Mean reward of every action in this state, and how far its deviation has shrunk, ``[2 A]``."""
        visits = self.visits[state]
        mean = self.reward[state] / jnp.maximum(visits, 1.0)
        return jnp.concatenate([mean, 1.0 / jnp.sqrt(1.0 + visits)])


def blank_ledger(states: int, actions: int) -> Ledger:
    """Nothing tried."""
    return Ledger(jnp.zeros((states, actions)), jnp.zeros((states, actions)))
