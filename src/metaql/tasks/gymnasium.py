"""Gymnasium environments as finite tasks: from the table they publish, or estimated.

Where an environment publishes its table (``env.unwrapped.P``, as Gymnasium's toy-text environments
do) it becomes a `FiniteTask` with exact answers; where it does not, one can be estimated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import wrappers

from metaql.errors import EnvironmentFaultError, UsageError
from metaql.tasks.finite import NO_HORIZON, FiniteTask, finite_task
from metaql.tasks.host import HostEnvironment, HostStep, layers_of, open_environment, unpack

__all__ = ["HostEnvironment", "HostStep", "estimate_task", "finite_task_of", "open_environment"]

_TRANSPARENT = (
    wrappers.TimeLimit,
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.RenderCollection,
    wrappers.HumanRendering,
    wrappers.Autoreset,
)
"""Wrappers that change no state, action, reward or dynamics of the environment inside."""


def finite_task_of(env: str | gymnasium.Env | HostEnvironment) -> FiniteTask | None:
    """The environment as a `FiniteTask`, from the table it publishes in ``env.unwrapped.P``.

    The table maps state -> action -> ``[(probability, next state, reward, terminated), ...]``.
    Entries with the same next state become one: probabilities added, rewards and terminations averaged by
    probability; rewards that differ there are noise (Bernoulli if all are 0 or 1). The start
    distribution is ``initial_state_distrib``; where it is not published, ``None`` is returned rather than
    a guess.

    Returns:
        The task, or ``None`` where no table is published or the table does not tell the whole truth
        (a wrapper that changes what happens; Taxi's fickle passenger, who remembers).

    Raises:
        InvalidTaskError: the published table is not a distribution.
        UnsupportedSpaceError, UnknownNameError: as `open_environment`.
    """
    host = open_environment(env)
    layers = list(layers_of(host.env))
    inner = layers[-1]
    initial = getattr(inner, "initial_state_distrib", None)
    opaque = any(not isinstance(layer, _TRANSPARENT) for layer in layers[:-1])
    hidden = getattr(inner, "fickle_passenger", False)
    rows = None if opaque or hidden or initial is None else _rows(getattr(inner, "P", None), host)
    if rows is None:
        return None
    shape = (host.num_states, host.num_actions, host.num_states)
    probability, reward, termination = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    apart = _Apart(shape)
    for s, a, (p, s2, r, ended) in rows:
        probability[s, a, s2] += p
        reward[s, a, s2] += p * r
        apart.add((s, a, s2), r, p)
        termination[s, a, s2] += p * bool(ended)
    weight = np.where(probability > 0, probability, 1.0)
    return finite_task(
        probability,
        reward / weight,
        termination=np.clip(termination / weight, 0.0, 1.0),
        initial=initial,
        horizon=None if host.horizon == NO_HORIZON else host.horizon,
        **_noise(apart.sums().sum(-1), binary=apart.binary),
    )


def estimate_task(
    env: str | gymnasium.Env | HostEnvironment, steps: int, seed: int = 0
) -> FiniteTask:
    """An estimate of the environment as a `FiniteTask`: the frequencies seen in ``steps`` steps.

    Acts by the least-tried action of the current state (ties at random). Pairs never tried become
    self-loops of reward 0. Rewards that differ between the same transitions are noise (Bernoulli if all
    are 0 or 1, else normal with a deviation for each pair). It is an estimate: exact answers computed
    from it are answers about the frequencies, not about the environment. Where no limit is declared,
    the longest episode that the environment itself truncated is taken for the horizon.

    Args:
        env: an id or an environment.
        steps: environment steps to spend, at least 1.
        seed: of the exploration and of the environment.

    Raises:
        UsageError: ``steps`` is below 1.
        EnvironmentFaultError: the environment broke its contract.
    """
    if steps < 1:
        raise UsageError("`steps` must be at least 1.", f"Got {steps}.")
    host = open_environment(env)
    seen = _explore(host, steps, np.random.default_rng(seed), seed)
    tries = seen.visits.sum(-1, keepdims=True)
    loops = np.eye(host.num_states)[:, None, :]
    arrivals = np.maximum(seen.visits, 1)
    return finite_task(
        np.where(tries > 0, seen.visits / np.maximum(tries, 1), loops),
        seen.reward / arrivals,
        termination=seen.ended / arrivals,
        initial=seen.starts / seen.starts.sum(),
        horizon=seen.horizon,
        **_noise(_variance(seen), binary=seen.apart.binary),
    )


class _Apart:
    """How far rewards of the same transition are from the first of them: exactly 0 if all are the same."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._weight, self._sum, self._square = (np.zeros(shape) for _ in range(3))
        self._first: dict[tuple[int, int, int], float] = {}
        self.binary = True
        """Whether all rewards are 0 or 1."""

    def add(self, at: tuple[int, int, int], reward: float, weight: float = 1.0) -> None:
        """One reward of a transition."""
        apart = reward - self._first.setdefault(at, reward)
        self._weight[at] += weight
        self._sum[at] += weight * apart
        self._square[at] += weight * apart**2
        self.binary = self.binary and reward in (0, 1)

    def sums(self) -> np.ndarray:
        """Weighted squares about the mean of each transition, ``[S, A, S]``."""
        mean = self._sum / np.where(self._weight > 0, self._weight, 1.0)
        return np.maximum(self._square - mean * self._sum, 0.0)


def _variance(seen: _Seen) -> np.ndarray:
    """Of rewards of the same transitions, ``[S, A]``; that of all pairs where each was seen once."""
    squares = seen.apart.sums().sum(-1)
    tries, ways = seen.visits.sum(-1), (seen.visits > 0).sum(-1)
    free = tries - ways
    pooled = squares.sum() / max(free.sum(), 1.0)
    return np.where((free == 0) & (tries > 0), pooled, squares / np.maximum(free, 1.0))


def _noise(variance: np.ndarray, *, binary: bool) -> dict[str, Any]:
    """What `finite_task` takes for rewards of such variances, ``[S, A]``; ``binary``: all are 0 or 1."""
    if binary:
        return {"reward_binary": bool(variance.any())}
    return {"reward_noise": np.sqrt(variance)}


class _Seen(NamedTuple):
    """Sums over the steps of an exploration."""

    visits: np.ndarray
    reward: np.ndarray
    ended: np.ndarray
    starts: np.ndarray
    horizon: int | None
    apart: _Apart


def _explore(host: HostEnvironment, steps: int, rng: np.random.Generator, seed: int) -> _Seen:
    """Act by the least-tried action and add up what happens."""
    shape = (host.num_states, host.num_actions, host.num_states)
    count, reward, ended = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    apart = _Apart(shape)
    tries, starts = np.zeros(shape[:2]), np.zeros(host.num_states)
    state, clock, longest = host.reset(seed), 0, 0
    starts[state] += 1
    for _ in range(steps):
        action = int(np.argmin(tries[state] + 0.5 * rng.random(host.num_actions)))
        tries[state, action] += 1
        clock += 1
        after = host.step(action)
        at = (state, action, after.next_state)
        count[at] += 1
        reward[at] += after.reward
        apart.add(at, after.reward)
        ended[at] += after.terminated
        state = after.next_state
        if after.truncated and (host.has_time_limit or clock < host.longest):
            longest = max(longest, clock)
        if after.terminated or after.truncated:
            state, clock = host.reset(), 0
            starts[state] += 1
    declared = None if host.horizon == NO_HORIZON else host.horizon
    return _Seen(count, reward, ended, starts, declared or longest or None, apart)


def _rows(
    table: Any, host: HostEnvironment
) -> list[tuple[int, int, tuple[int, int, float, bool]]] | None:
    """The entries of a published table, numbered from 0; ``None`` if it is not such a table."""
    # A table is keyed by observations or from 0; states and actions may differ in that.
    first_state = _first_key(table, host.first_state, host.num_states)
    if first_state is None:
        return None
    found = []
    for s in range(host.num_states):
        actions = table[s + first_state]
        first_action = _first_key(actions, host.first_action, host.num_actions)
        if first_action is None:
            return None
        for a in range(host.num_actions):
            found += [(s, a, _entry(e, first_state, host)) for e in actions[a + first_action]]
    return found


def _entry(entry: Any, first_state: int, host: HostEnvironment) -> tuple[Any, int, Any, Any]:
    """One entry ``(probability, next state, reward, terminated)`` with its state from 0."""
    p, s2, r, ended = unpack(entry, 4, f"the table `P` of {host.name}")
    state = int(s2) - first_state
    if not 0 <= state < host.num_states:
        raise EnvironmentFaultError(
            f"The table `P` of {host.name} must lead to one of its {host.num_states} states.",
            f"It holds {s2!r}.",
            "Correct the table, or remove it.",
        )
    return p, state, r, ended


def _first_key(table: Any, start: int, count: int) -> int | None:
    """Where the keys of one level of a table begin (``start`` or 0); ``None``: no such level."""
    if not isinstance(table, dict | list | tuple):
        return None
    keys = set(table) if isinstance(table, dict) else set(range(len(table)))
    return next((first for first in (start, 0) if keys == set(range(first, first + count))), None)
