"""Strides: what actions add to the number of the state, wherever that is a habit of theirs.

The numbers of a task's states are names to a Markov decision process, but seldom to who numbered them:
in a grid that is read row by row, "right" adds 1 and "down" adds the width, on every cell. Where that
is so, a few steps tell where pairs that were never tried lead. The chance of a stride d from state s by
action a is

    p(d | s, a)  proportional to  effect(a, d) access(s, d)

so that a wall, which shuts one direction off whatever the action, is learned from all actions at once.
Both factors are fitted by one step of iterative proportional fitting per transition (Deming & Stephan
1940), as Poisson rates with Gamma priors. The result is where a pair's Dirichlet is centred, if the
task's numbers mean anything; that is judged by what this foresaw (`metaql.embedding.evidence`), so where
states were numbered by lot nothing is believed of it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.types import TaskSpec, Transition

ROOM = 10
"""Strides remembered; of more, the most frequent."""
_OPENNESS = 0.3
"""Expected passages after which a state's own access counts as much as that all are open."""
_BESIDE = 0.05
"""Chance that a pair leads anywhere else."""
_ALIKE = 0.3
"""Steps that what all actions do counts as, of each action."""
_TINY = 1e-6


class Strides(NamedTuple):
    """Strides seen, and what explains them."""

    size: Int[Array, " D"]
    """The stride in each slot."""
    times: Float[Array, " D"]
    """Transitions with it; 0: the slot is free."""
    by_action: Float[Array, "A D"]
    by_state: Float[Array, "S D"]
    effect: Float[Array, "A D"]
    """How often an action does it where nothing is in the way."""
    access: Float[Array, "S D"]
    """1 where nothing is known to be in the way, 0 where something is; more where others end up so."""


class Leads(NamedTuple):
    """Where strides lead: with probability ``share(s, a) effect(a, d) access(s, d)`` to ``row(s, d)``."""

    effect: Float[Array, "A D"]
    access: Float[Array, "S D"]
    share: Float[Array, "S A"]
    row: Int[Array, "S D"]
    """Row of the state led to; ``S`` if that was never met."""

    @property
    def chance(self) -> Float[Array, "S A D"]:
        """Of each stride; what is missing to 1 is unknown, which is all of it in states never met."""
        return self.share[..., None] * self.effect * self.access[:, None]

    def expectation(
        self, values: Float[Array, "C S"], fresh: Float[Array, " C"]
    ) -> Float[Array, "C S A"]:
        """Sum over strides of each row of ``values`` times its chance; ``fresh``: of states never met.

        As one product of matrices, and not by `chance`, which is large.
        """
        there = jnp.concatenate([values, fresh[:, None]], 1)[:, self.row] * self.access
        return self.share * jnp.einsum("csd,ad->csa", there, self.effect)

    @property
    def known(self) -> Float[Array, "S A"]:
        """Sum of all chances."""
        return self.share * (self.access @ self.effect.T)


def no_strides(num_states: int, num_actions: int) -> Strides:
    """Before any transition."""
    zero = jnp.zeros(ROOM)
    by_action, by_state = jnp.zeros((num_actions, ROOM)), jnp.zeros((num_states, ROOM))
    return Strides(zero.astype(jnp.int32), zero, by_action, by_state, by_action, by_state + 1.0)


def stride_of(spec: TaskSpec, transition: Transition) -> Int[Array, ""]:
    """What a transition added to the state's number."""
    numbers = _numbers(spec)
    return numbers[transition.next_state] - numbers[transition.state]


def chance_of(
    strides: Strides, spec: TaskSpec, transition: Transition
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Predicted probability of the transition's stride, and what was left for unknown ones."""
    state, action = transition.state, transition.action
    inside = _inside(strides, spec)[state]
    joint = strides.effect[action] * strides.access[state] * inside
    chance = (1.0 - _BESIDE) * joint / jnp.maximum(joint.sum(), _TINY)
    known = (strides.size == stride_of(spec, transition)) & (strides.times > 0)
    return (chance * known).sum(), 1.0 - chance.sum()


def leads(strides: Strides, spec: TaskSpec, met: Bool[Array, " S"]) -> Leads:
    """Where every pair is predicted to lead."""
    numbers = _numbers(spec)
    size = numbers.shape[0]
    wanted = numbers[:, None] + strides.size
    if spec.numbers is None:
        row, found = jnp.clip(wanted, 0, size - 1), (wanted >= 0) & (wanted < size)
    else:
        order = jnp.argsort(numbers)
        place = jnp.minimum(jnp.searchsorted(numbers[order], wanted), size - 1)
        row = order[place]
        found = (numbers[row] == wanted) & (wanted >= 0)
    row = jnp.where(found & met[row], row, size).astype(jnp.int32)
    access = strides.access * _inside(strides, spec)
    # Where no step was ever taken from, nothing is foreseen: its number may not even be known.
    share = (1.0 - _BESIDE) * met[:, None] / _total(strides.effect, access)
    return Leads(strides.effect, access, share, row)


def walk(
    strides: Strides, spec: TaskSpec, transition: Transition, visits: Float[Array, "S A"]
) -> Strides:
    """Count one transition and refit; ``visits`` include it."""
    size, actions = visits.shape
    stride = stride_of(spec, transition)
    same = (strides.size == stride) & (strides.times > 0)
    slot = jax.nn.one_hot(jnp.where(same.any(), same.argmax(), strides.times.argmin()), ROOM)
    here = slot > 0
    kept = jnp.where(here & ~same.any(), 0.0, 1.0)  # the least frequent stride makes room
    by_action = jax.nn.one_hot(transition.action, actions)[:, None] * slot
    by_state = jax.nn.one_hot(transition.state, size)[:, None] * slot
    strides = Strides(
        size=jnp.where(here, stride, strides.size),
        times=strides.times * kept + slot,
        by_action=strides.by_action * kept + by_action,
        by_state=strides.by_state * kept + by_state,
        effect=jnp.where(here & (kept == 0), _TINY, strides.effect),
        access=jnp.where(here & (kept == 0), 1.0, strides.access),
    )
    return _fit(strides, spec, visits)


def _fit(strides: Strides, spec: TaskSpec, visits: Float[Array, "S A"]) -> Strides:
    """One step of proportional fitting: first the actions, then the states."""
    open_ = strides.access * _inside(strides, spec)
    passes = visits / _total(strides.effect, open_)
    usual = strides.times / jnp.maximum(strides.times.sum(), 1.0)
    effect = _ALIKE * usual + strides.by_action
    effect = effect / (_ALIKE + passes.T @ open_)
    access = _OPENNESS + strides.by_state
    access = access / (_OPENNESS + passes @ effect)
    return strides._replace(effect=effect, access=access)


def _total(effect: Float[Array, "A D"], access: Float[Array, "S D"]) -> Float[Array, "S A"]:
    """Sum of the rates of all strides from every pair; never 0."""
    return jnp.maximum(access @ effect.T, _TINY)


def _inside(strides: Strides, spec: TaskSpec) -> Float[Array, "S D"]:
    """1 where the stride leads to a number that a state has."""
    wanted = _numbers(spec)[:, None] + strides.size
    total = spec.state_mask.sum() if spec.num_states is None else spec.num_states
    return ((wanted >= 0) & (wanted < total)).astype(jnp.float32)


def _numbers(spec: TaskSpec) -> Int[Array, " S"]:
    """The task's own number of the state in each row; -1 where the row is free."""
    if spec.numbers is None:
        return jnp.arange(spec.state_mask.shape[0])
    return spec.numbers
