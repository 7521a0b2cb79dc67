"""Gymnasium environments of several tasks side by side on the host, their answers checked all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from metaql.errors import EnvironmentFaultError, MetaQLError, UnsupportedSpaceError
from metaql.tasks.finite import NO_HORIZON
from metaql.tasks.host import LARGEST_REWARD, REPORT
from metaql.tasks.vectors import VectorEnvironment
from metaql.tasks.watchdog import answering_within


class Answers(NamedTuple):
    """What N environments answered; rows of those that were not asked are zero."""

    next_state: Float[np.ndarray, "N D"]
    reward: Float[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]
    """The clock ended the episode; never together with ``terminated``, which wins."""


class Crowd:
    """N environments with the same spaces, one per task, each stepped when asked."""

    def __init__(
        self, hosts: Sequence[VectorEnvironment], names: Sequence[str], seconds: float
    ) -> None:
        """Take environments that are alike.

        Args:
            hosts: of every task.
            names: of the tasks, for messages.
            seconds: that all of them together may take to answer.

        Raises:
            UnsupportedSpaceError: their spaces differ, or episodes of one would never end.
        """
        self.hosts, self.names, self.seconds = list(hosts), list(names), seconds
        for host, name in zip(hosts, names, strict=True):
            _check_alike(hosts[0], host, name)
        self.horizon = np.asarray([host.horizon for host in hosts])
        self._doing = [(host.env.step, host.meaning) for host in hosts]
        self._clock = np.zeros(len(hosts), np.int64)
        self._at = 0

    def reset(
        self, who: Bool[np.ndarray, " N"], seeds: Sequence[int] | None = None
    ) -> Float[np.ndarray, "N D"]:
        """Start an episode in those asked.

        Args:
            who: those asked.
            seeds: of the environments' own randomness, ``[N]``; None: they go on with it.

        Returns:
            Their first states.

        Raises:
            EnvironmentFaultError: one raised, took too long, or its state is not in its space.
        """
        self._clock[who] = 0
        seen: list[Any] = [None] * len(self.hosts)

        def ask(i: int) -> None:
            seed = None if seeds is None else seeds[i]
            seen[i], _ = self.hosts[i].env.reset(seed=seed)

        self._ask(who, ask, "reset")
        return self._states(who, seen)

    def step(self, actions: Int[np.ndarray, "N *K"], who: Bool[np.ndarray, " N"]) -> Answers:
        """Take one action in each of those asked.

        Raises:
            EnvironmentFaultError: one raised, took too long, or answered with something impossible.
        """
        size, numbers = len(self.hosts), actions.tolist()
        seen: list[Any] = [None] * size
        reward, ended, cut = np.zeros(size), np.zeros(size, bool), np.zeros(size, bool)

        def ask(i: int) -> None:
            step, meaning = self._doing[i]
            seen[i], reward[i], ended[i], cut[i], _ = step(meaning(numbers[i]))

        self._ask(who, ask, "step")
        states = self._states(who, seen)
        good = np.abs(reward) <= LARGEST_REWARD  # false for NaN
        if not good.all():
            self._fault(
                int(good.argmin()), "Rewards must be finite numbers.", reward[good.argmin()]
            )
        self._clock += who
        cut = (cut | (self._clock >= self.horizon)) & who & ~ended
        return Answers(states, reward.astype(np.float32), ended, cut)

    def _ask(self, who: Bool[np.ndarray, " N"], ask: Any, what: str) -> None:
        """Ask one after the other; whatever goes wrong is named."""
        try:
            with answering_within(self.seconds, self._late):
                for i in np.flatnonzero(who).tolist():
                    self._at = i
                    ask(i)
        except MetaQLError:
            raise
        except Exception as error:
            raise EnvironmentFaultError(
                "An environment must not raise, and must answer as Gymnasium's interface says.",
                f"{type(error).__name__} in `{what}`, {self._where(self._at)}: {error}.",
                "Correct the environment; the original exception is chained to this one.",
            ) from error

    def _states(self, who: Bool[np.ndarray, " N"], seen: Sequence[Any]) -> Float[np.ndarray, "N D"]:
        first, asked = self.hosts[0], np.flatnonzero(who).tolist()
        found = [seen[i] for i in asked]
        rows = first.flat_all(found)
        if rows is None:
            rows = self._one_by_one(asked, found)
        good = first.within(rows)
        if not good.all():
            worst = int(good.argmin())
            self._fault(asked[worst], f"Observations must lie in {first.space}.", found[worst])
        if len(asked) == len(seen):
            return rows
        states = np.zeros((len(seen), first.num_states), np.float32)
        states[asked] = rows
        return states

    def _one_by_one(self, asked: Sequence[int], found: Sequence[Any]) -> Float[np.ndarray, "M D"]:
        """Observations that are not arrays of one kind, as vectors."""
        first = self.hosts[0]
        vectors = [first.flat(seen) for seen in found]
        for i, seen, vector in zip(asked, found, vectors, strict=True):
            if vector is None:
                self._fault(i, f"Observations must lie in {first.space}.", seen)
        return np.asarray(vectors, np.float32).reshape(-1, first.num_states)

    def _fault(self, index: int, rule: str, found: Any) -> None:
        raise EnvironmentFaultError(rule, f"Got {found!r} at {self._where(index)}.", REPORT)

    def _late(self) -> EnvironmentFaultError:
        return EnvironmentFaultError(
            f"All environments together must answer within {self.seconds:g} seconds.",
            f"Nothing came from {self._where(self._at)}.",
            "Correct the environment, or give the family more `seconds`.",
        )

    def _where(self, index: int) -> str:
        step = self._clock[index] + 1
        return f"step {step} of an episode of task {self.names[index]} ({self.hosts[index].name})"


def _check_alike(first: VectorEnvironment, host: VectorEnvironment, name: str) -> None:
    """Raise unless the spaces are those of the first, and episodes end."""
    mine = (host.env.observation_space, host.env.action_space)
    wanted = (first.env.observation_space, first.env.action_space)
    if mine != wanted:
        raise UnsupportedSpaceError(
            "All tasks of a family must have the same observation and action spaces.",
            f"Task {name} has {mine}, the first one {wanted}.",
            "Bring them to one size by a wrapper, or make families of those that are alike.",
        )
    if host.horizon == NO_HORIZON:
        raise UnsupportedSpaceError(
            "Episodes must end after a number of steps.",
            f"Task {name} ({host.name}) declares none.",
            "Wrap it in gymnasium.wrappers.TimeLimit, or give the family a `horizon`.",
        )
