"""Gymnasium environments stepped on the host, every answer checked.

Any environment with Discrete observation and action spaces. States and actions are numbered from 0
on our side; a space with ``start`` is shifted both ways.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Generator, Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces, wrappers

from metaql.errors import (
    EnvironmentFaultError,
    UnknownNameError,
    UnsupportedSpaceError,
    UsageError,
)
from metaql.tasks.actions import Actions
from metaql.tasks.finite import LARGEST_REWARD, NO_HORIZON
from metaql.types import Observation, TaskSpec

REPORT = "Correct the environment: its states, rewards and flags must be valid at every step."
ENDLESS_STEPS = 10_000
"""Steps after which an episode is truncated where neither the environment nor the agent knows a limit."""


class HostStep(NamedTuple):
    """What a host environment answered to one action."""

    next_state: Observation
    """A number, or a vector ``[D]`` of float32."""
    reward: float
    terminated: bool
    truncated: bool
    """The clock ended the episode; never together with ``terminated``, which wins."""


class HostEnvironment:
    """A Gymnasium environment with finite spaces, every answer checked. Made by `open_environment`.

    Episodes are truncated after ``longest`` steps even where no wrapper does it, so that what a
    learner is told is what happens, and nothing goes on for ever.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        """Take an environment whose spaces `open_environment` has checked."""
        self.env = env
        self._states = _discrete(env.observation_space, "observation")
        _discrete(env.action_space, "action")
        self.num_states = int(self._states.n)
        """States, numbered from 0."""
        self.first_state = int(self._states.start)
        """The observation that is state 0."""
        self._prepare(env, Actions(env.action_space, None))

    def _prepare(self, env: gymnasium.Env, actions: Actions) -> None:
        self.action = actions
        """Makes the environment's action of a number."""
        space = env.action_space
        self.first_action = int(space.start) if isinstance(space, spaces.Discrete) else 0
        """What the environment calls action 0."""
        self.num_actions = actions.shape[-1]
        """Actions, numbered from 0."""
        self.horizon = _horizon(env)
        """Steps after which an episode is truncated, as learners are told (`NO_HORIZON`: no limit)."""
        self.has_time_limit = self.horizon != NO_HORIZON
        """Whether the environment itself declares one."""
        self._state: Observation = None
        self._clock = 0

    @property
    def name(self) -> str:
        """The registered id, or the class name of an environment that has none."""
        return self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__

    @property
    def longest(self) -> int:
        """Steps after which an episode is truncated, whatever learners are told."""
        return ENDLESS_STEPS if self.horizon == NO_HORIZON else self.horizon

    def assume(self, horizon: int) -> None:
        """Truncate episodes after so many steps, unless the environment declares its own limit."""
        if not self.has_time_limit:
            self.horizon = horizon

    def spec(self, episodes: int) -> TaskSpec:
        """What a learner may know of this environment before its first step."""
        return TaskSpec(
            state_mask=jnp.ones(self.num_states, bool),
            action_mask=jnp.asarray(self.action.mask),
            horizon=jnp.asarray(self.horizon, jnp.int32),
            episodes=jnp.asarray(episodes, jnp.int32),
        )

    @property
    def warnings(self) -> list[str]:
        """What makes adapting here harder than it need be, in plain sentences."""
        if self.has_time_limit:
            return []
        return [
            f"{self.name} declares no time limit: episodes that it does not end itself are truncated after "
            f"{self.longest} steps. "
            "To set a limit: gymnasium.wrappers.TimeLimit, or max_episode_steps where it is made; a "
            "SimulatorFamily opens its tasks with theirs by family.open(split, number)."
        ]

    def reset(self, seed: int | None = None) -> Observation:
        """Start an episode and return its first state.

        Args:
            seed: of the environment's own randomness; ``None``: go on with it.

        Raises:
            EnvironmentFaultError: the environment raised, or its first state is not in its space.
        """
        self._state = None
        where = f"reset(seed={seed}) of {self.name}"
        try:
            answer = self.env.reset(seed=None if seed is None else int(seed))
        except Exception as error:
            raise _raised(where, error) from error
        observation, _ = unpack(answer, 2, where)
        self._clock = 0
        self._state = self._to_state(observation, where)
        return self._state

    def step(self, action: int | np.ndarray) -> HostStep:
        """Take one action: a number, or one for each of its parts.

        Raises:
            UsageError: no episode is running, or there is no such action.
            EnvironmentFaultError: the environment raised, or answered with a reward that is not a
                finite number, a state outside its space or a flag that is not true or false.
        """
        state = self._running(action)
        self._state = None  # An episode in which the environment failed cannot go on.
        where = (
            f"step {self._clock + 1} of an episode of {self.name} (state {state}, action {action})"
        )
        try:
            answer = self.env.step(self.action(action))
        except Exception as error:
            raise _raised(where, error) from error
        observation, reward, ended, cut, _ = unpack(answer, 5, where)
        next_state = self._to_state(observation, where)
        amount = checked_reward(reward, where)
        terminated = checked_flag("terminated", ended, where)
        self._clock += 1
        cut_off = checked_flag("truncated", cut, where) or self._clock >= self.longest
        truncated = cut_off and not terminated
        if not (terminated or truncated):
            self._state = next_state
        return HostStep(next_state, amount, terminated, truncated)

    def batch(self, observations: Any) -> tuple[np.ndarray, bool]:
        """Observations as an array ``[N, ...]``, and whether a single one was given.

        Raises:
            UsageError: one that is outside the environment's space.
        """
        return numbered(observations, self.first_state, self.num_states)

    def close(self) -> None:
        """Release what the environment holds (windows, files)."""
        self.env.close()

    def _running(self, action: int | np.ndarray) -> Observation:
        """The current state, after checking that ``action`` can be taken in it."""
        if self._state is None:
            raise UsageError(
                "`step` needs a running episode.", "The last one has ended.", "Call `reset` first."
            )
        if not self.action.holds(action):
            parts = (
                ", in each of {} parts".format(*self.action.shape) if self.action.shape[1:] else ""
            )
            raise UsageError(
                f"Actions of {self.name} are 0 to {self.num_actions - 1}{parts}.", f"Got {action}."
            )
        return self._state

    def _to_state(self, observation: Any, where: str) -> Observation:
        number = np.asarray(observation)
        start = self.first_state
        whole = number.shape == () and number.dtype.kind in "iu"
        if not whole or not start <= int(number) < start + self.num_states:
            raise EnvironmentFaultError(
                f"Observations must be integers from {start} to {start + self.num_states - 1}.",
                f"Got {observation!r} at {where}.",
                REPORT,
            )
        return int(number) - start


def open_environment(env: Any, **kwargs: Any) -> HostEnvironment:
    """Open a Gymnasium environment with finite spaces.

    Args:
        env: a registered id, or an environment.
        kwargs: passed to ``gymnasium.make``; only with an id.

    Raises:
        UnknownNameError: no environment of this id is registered.
        UnsupportedSpaceError: a space is not Discrete, or ``env`` is no environment.
        UsageError: ``kwargs`` with an environment, or ``gymnasium.make`` refused.

    Example:
        >>> lake = open_environment("FrozenLake-v1")
        >>> lake.num_states, lake.num_actions, lake.horizon
        (16, 4, 100)
    """
    if isinstance(env, HostEnvironment):
        refuse_options(kwargs)
        # What was opened as something else is opened anew: its spaces may not be finite.
        return env if type(env) is HostEnvironment else HostEnvironment(env.env)
    return HostEnvironment(plain_environment(env, kwargs))


@contextlib.contextmanager
def lent(env: Any, host: HostEnvironment) -> Generator[HostEnvironment]:
    """``host``, closed afterwards where ``env`` is the id that it was made of: else it is somebody's own."""
    try:
        yield host
    finally:
        if isinstance(env, str):
            with contextlib.suppress(Exception):  # what was learned is worth more
                host.close()


def plain_environment(env: Any, kwargs: dict[str, Any]) -> gymnasium.Env:
    """The environment itself; arguments and errors as in `open_environment`."""
    if isinstance(env, str):
        return _make(env, kwargs)
    refuse_options(kwargs)
    if isinstance(env, Mapping):
        raise UnsupportedSpaceError(
            "`env` must be an id or a `gymnasium.Env`.",
            f"Got a mapping with {', '.join(map(repr, list(env)[:6]))}.",
            "If these are logged transitions: the agent `finite` adapts to them, "
            'metaql.load("finite").adapt(data, num_states=..., num_actions=...).',
        )
    if not isinstance(env, gymnasium.Env):
        raise UnsupportedSpaceError(
            "`env` must be an id or a `gymnasium.Env`.",
            f"Got {type(env).__name__}.",
            "Call a class to make one; a vector environment holds several: pass one of them.",
        )
    return env


def refuse_options(kwargs: dict[str, Any]) -> None:
    """Raise if options are given with something that is already made."""
    if kwargs:
        raise UsageError(
            "Options go to `gymnasium.make` and need an id.",
            f"Got {sorted(kwargs)} with an environment that is already made.",
        )


def numbered(observations: Any, first: int, count: int) -> tuple[np.ndarray, bool]:
    """States from 0 of observations ``first`` to ``first + count - 1``, and whether a single one was given.

    Raises:
        UsageError: one that is outside.
    """
    given = np.asarray(observations)
    whole = given.dtype.kind in "iu" and given.ndim <= 1
    # Before the subtraction: there is none for text, and a narrow unsigned type would wrap.
    states = np.atleast_1d(given if whole else -1).astype(np.int64)
    states = states - (first if whole else 0)
    if (states < 0).any() or (states >= count).any():
        raise UsageError(
            f"Observations are integers from {first} to {first + count - 1}, one or an array [N].",
            f"Got {observations!r}.",
        )
    return states, given.ndim == 0


def layers_of(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """Go through the wrappers from outside in, then the environment itself."""
    yield env
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        yield env


def _horizon(env: gymnasium.Env) -> int:
    """The shortest TimeLimit around the environment, else what its registration says."""
    limits = [
        int(layer._max_episode_steps)  # pyright: ignore[reportPrivateUsage]
        for layer in layers_of(env)
        if isinstance(layer, wrappers.TimeLimit)
    ]
    declared = env.spec.max_episode_steps if env.spec else None
    limits = limits or ([] if declared is None or declared < 1 else [int(declared)])
    # A limit beyond all plans is one still, and no number that stands for none.
    return min(*limits, NO_HORIZON - 1) if limits else NO_HORIZON


def _discrete(space: Any, role: str) -> spaces.Discrete:
    if not isinstance(space, spaces.Discrete):
        raise UnsupportedSpaceError(
            "Finite observation and action spaces are needed (`gymnasium.spaces.Discrete`).",
            f"The {role} space is {space}.",
            "Number its values by a wrapper (gymnasium.wrappers.DiscretizeObservation, "
            "TransformObservation, DiscretizeAction or TransformAction), or use an agent that was trained "
            "on such spaces (metaql.SimulatorFamily, RecurrentQ).",
        )
    if space.n >= 2**31:
        raise UnsupportedSpaceError(
            "States and actions are numbered in 32 bits.", f"The {role} space is {space}."
        )
    return space


def _make(name: str, kwargs: dict[str, Any]) -> gymnasium.Env:
    """``gymnasium.make`` with errors a user can act on."""
    try:
        # Every answer is checked here at every step; the passive checker looks at the first only.
        return gymnasium.make(name, **{"disable_env_checker": True, **kwargs})
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv, ImportError) as error:
        known = {_bare(key): key for key in sorted(gymnasium.registry, key=_rank)}
        near = difflib.get_close_matches(_bare(name), known, n=3)
        hint = f"Did you mean {', '.join(known[key] for key in near)}?" if near else ""
        raise UnknownNameError(
            "`env` must be the id of an environment registered with Gymnasium.",
            f"Got {name!r}: {str(error).partition(' Did you mean')[0]}",
            hint or "`gymnasium.pprint_registry()` lists them.",
        ) from error
    except Exception as error:
        raise UsageError(
            f"`gymnasium.make({name!r})` must succeed with the options given.",
            f"Options {sorted(kwargs)}: {type(error).__name__}: {error}",
            "See the environment's own documentation for its options.",
        ) from error


def _rank(name: str) -> tuple[bool, int]:
    """What is suggested of ids that are alike: the last, of no namespace and the newest version."""
    return "/" not in name, gymnasium.registry[name].version or 0


def _bare(name: str) -> str:
    """Without namespace and version, in which any two environments are alike."""
    name = name.rpartition("/")[2].lower()
    return name.rpartition("-v")[0] or name


def unpack(answer: Any, length: int, where: str) -> tuple[Any, ...]:
    """Check that ``answer`` holds ``length`` values; raise `EnvironmentFaultError` otherwise."""
    if not isinstance(answer, tuple | list) or len(answer) != length:
        raise EnvironmentFaultError(
            f"{length} values are expected, as in Gymnasium's interface.",
            f"Got {answer!r} at {where}.",
            "Environments of the older Gym interface need a conversion.",
        )
    return tuple(answer)


def checked_reward(value: Any, where: str) -> float:
    """A reward as it was answered; raise `EnvironmentFaultError` unless it is one finite number."""
    number = np.asarray(value)
    numeric = number.shape == () and number.dtype.kind in "biuf"
    # NaN is not smaller than anything.
    if not numeric or not abs(float(number)) <= LARGEST_REWARD:
        raise EnvironmentFaultError(
            f"Rewards must be finite numbers, {LARGEST_REWARD:g} at most.",
            f"Got {value!r} at {where}.",
            REPORT,
        )
    return float(number)


def checked_flag(name: str, value: Any, where: str) -> bool:
    """A flag as it was answered; raise `EnvironmentFaultError` unless it is true or false."""
    flag = np.asarray(value)
    if flag.shape != () or flag.dtype.kind not in "biu":
        raise EnvironmentFaultError(
            f"`{name}` must be true or false.", f"Got {value!r} at {where}.", REPORT
        )
    return bool(flag)


def _raised(where: str, error: Exception) -> EnvironmentFaultError:
    return EnvironmentFaultError(
        "An environment must not raise.",
        f"{type(error).__name__} at {where}: {error}.",
        "Correct the environment; the original exception is chained to this one.",
    )
