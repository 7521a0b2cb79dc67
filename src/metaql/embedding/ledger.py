"""What was tried in which state and what it paid: what needs no learning where states are numbered.

Counts and means are all there is to know of the arms of a bandit, and no recurrent state learns to keep
fifty of them as exactly as adding up does. Of many states the ledger shows the one that one is in.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.types import Transition

FACTS = 4
"""Of every action, in a view."""
_LOUD = 5.0
"""Factor of rewards: actions of one state differ by a fraction of the largest reward there is."""


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
        """What is known of every action in this state, ``[FACTS, A]`` in a row.

        Of n tries: their mean reward, the same shrunk to 0 (by n / (n + 1)), one over the root of n + 1, and
        1 / (n + 1). Mean and deviation of a normal posterior are sums of the last three (under a prior whose
        variance is that of a reward), and so are upper confidence bounds.
        """
        visits, reward = self.visits[state], _LOUD * self.reward[state]
        again = 1.0 / (1.0 + visits)
        facts = (reward / jnp.maximum(visits, 1.0), reward * again, jnp.sqrt(again), again)
        return jnp.concatenate(facts)


def blank_ledger(states: int, actions: int) -> Ledger:
    """Nothing tried."""
    return Ledger(jnp.zeros((states, actions)), jnp.zeros((states, actions)))
