"""Strides: what actions add to the number of the state, wherever that is a habit of theirs.

The numbers of a task's states are names to a Markov decision process, but seldom to who numbered them:
in a grid that is read row by row, "right" adds 1 and "down" adds the width, on every cell. Where that
is so, a few steps tell where pairs that were never tried lead. The chance of a stride d from state s by
action a is

    p(d | s, a) = effect(a, d) open(s, d)    for d != 0
    p(0 | s, a) = effect(a, 0) + sum over d != 0 of effect(a, d) (1 - open(s, d))

what is in the way of one stride, whatever the action, keeps in place. A stride that was made once from a
state is open there; one that was not is open with the probability that Bayes' rule leaves it after so
many steps that should have made it. Effects are what actions did where nothing was in the way; the two
are fitted in turn, one step of each per transition (as in expectation maximisation). The result is where
a pair's Dirichlet is centred, if the task's numbers mean anything; that is judged by what this foresaw
(`metaql.embedding.evidence`), so where states were numbered by lot nothing is believed of it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.types import TaskSpec, Transition

ROOM = 10
"""Strides remembered; of more, the most frequent."""
_OPEN, _OPEN_WEIGHT = 0.8, 2.0
"""Share of strides that are open before anything is known of the task, and how many that counts as."""
_BESIDE = 0.05
"""Chance that a pair leads anywhere else."""
_ALIKE = 0.3
"""Steps that what all actions do counts as, of each action."""
_TABLE = 64
"""States per row up to which rows are looked up in a table of all states: a search takes ten times longer."""
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
    """Probability that nothing is in the way."""


class Leads(NamedTuple):
    """Where strides lead: with probability ``share(s) effect(a, d) access(s, d)`` to ``row(s, d)``.

    What is in the way keeps in place.
    """

    effect: Float[Array, "A D"]
    access: Float[Array, "S D"]
    share: Float[Array, " S"]
    row: Int[Array, "S D"]
    """Row of the state led to; ``S`` if that was never met."""
    blocked: Float[Array, "S A"]
    """Probability that something is in the way."""

    def expectation(
        self, values: Float[Array, "C S"], fresh: Float[Array, " C"]
    ) -> Float[Array, "C S A"]:
        """Sum over strides of each row of ``values`` times its chance; ``fresh``: of states never met.

        The chances add up to `known`: what is missing to 1 is unknown, which is all in states never met.
        """
        there = jnp.concatenate([values, fresh[:, None]], 1)[:, self.row] * self.access
        moved = jnp.einsum("csd,ad->csa", there, self.effect)
        return self.share[:, None] * (moved + self.blocked * values[..., None])

    @property
    def known(self) -> Float[Array, "S A"]:
        """Sum of all chances."""
        return self.share[:, None] * self.effect.sum(-1)


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
    stride, effect = stride_of(spec, transition), strides.effect[action]
    access = strides.access[state]
    moved = (effect * access * (strides.size == stride) * (strides.times > 0)).sum()
    kept = (stride == 0) * (effect * (1.0 - access)).sum()
    return (1.0 - _BESIDE) * (moved + kept), 1.0 - (1.0 - _BESIDE) * effect.sum()


def leads(strides: Strides, spec: TaskSpec, met: Bool[Array, " S"]) -> Leads:
    """Where every pair is predicted to lead."""
    numbers = _numbers(spec)
    size = numbers.shape[0]
    wanted = numbers[:, None] + strides.size
    row = _rows_of(wanted, spec)
    row = jnp.where((numbers[row] == wanted) & (wanted >= 0) & met[row], row, size)
    # Where no step was ever taken from, nothing is foreseen: its number may not even be known.
    blocked = _blocked(strides.effect, strides.access)
    return Leads(strides.effect, strides.access, (1.0 - _BESIDE) * met, row, blocked)


def _rows_of(wanted: Int[Array, "*K"], spec: TaskSpec) -> Int[Array, "*K"]:
    """Rows of the states with these numbers; any row where there is none."""
    numbers = _numbers(spec)
    size = numbers.shape[0]
    if spec.numbers is None:
        return jnp.clip(wanted, 0, size - 1)

    def by_table() -> Int[Array, "*K"]:
        # Its last entry takes what free rows, numbered -1, write.
        table = jnp.zeros(_TABLE * size + 1, jnp.int32).at[numbers].set(jnp.arange(size))
        return table[jnp.clip(wanted, 0, _TABLE * size)]

    def by_search() -> Int[Array, "*K"]:
        order = jnp.argsort(numbers)
        place = jnp.searchsorted(numbers[order], wanted)
        return order[jnp.minimum(place, size - 1)]

    return jax.lax.cond(spec.total_states <= _TABLE * size, by_table, by_search)


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
    """One step of expectation maximisation: what is open, then what actions do."""
    access = _open(strides, spec, visits)
    stays = (strides.size == 0) & (strides.times > 0)
    held = (visits * _blocked(strides.effect, access)).sum(0)
    done = jnp.maximum(strides.by_action - jnp.where(stays, held[:, None], 0.0), 0.0)
    usual = strides.times / jnp.maximum(strides.times.sum(), 1.0)
    effect = (_ALIKE * usual + done) / (_ALIKE + visits.T @ access)
    effect = effect / jnp.maximum(effect.sum(-1, keepdims=True), _TINY)
    return strides._replace(effect=effect, access=access)


def _open(strides: Strides, spec: TaskSpec, visits: Float[Array, "S A"]) -> Float[Array, "S D"]:
    """Probability that nothing is in the way of a stride."""
    missed = visits @ jnp.log1p(-jnp.minimum(strides.effect, 0.99))
    inside, moves = _inside(strides, spec), (strides.size != 0).astype(jnp.float32)
    made = (strides.by_state > 0) * moves
    # Those that surely would have been made, had they been open, are shut.
    shut = -jnp.expm1(missed) * inside * moves * (1.0 - made)
    usual = (_OPEN_WEIGHT * _OPEN + made.sum()) / (_OPEN_WEIGHT + made.sum() + shut.sum())
    odds = jnp.log(usual) - jnp.log1p(-usual) + missed
    return jnp.where((made > 0) | (moves == 0), 1.0, jax.nn.sigmoid(odds)) * inside


def _blocked(effect: Float[Array, "A D"], access: Float[Array, "S D"]) -> Float[Array, "S A"]:
    """Probability that what an action does has something in its way."""
    return (1.0 - access) @ effect.T


def _inside(strides: Strides, spec: TaskSpec) -> Float[Array, "S D"]:
    """1 where the stride leads to a number that a state has."""
    wanted = _numbers(spec)[:, None] + strides.size
    return ((wanted >= 0) & (wanted < spec.total_states)).astype(jnp.float32)


def _numbers(spec: TaskSpec) -> Int[Array, " S"]:
    """The task's own number of the state in each row; -1 where the row is free."""
    if spec.numbers is None:
        return jnp.arange(spec.state_mask.shape[0])
    return spec.numbers
