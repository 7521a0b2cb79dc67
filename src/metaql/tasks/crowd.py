"""Gymnasium environments of several tasks side by side on the host, their answers checked all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from metaql.errors import EnvironmentFaultError, MetaQLError, UnsupportedSpaceError
from metaql.tasks.finite import LARGEST_REWARD, NO_HORIZON
from metaql.tasks.host import REPORT, checked_flag, checked_reward
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
            hosts: of every task; their spaces are the same and their episodes end (`check_alike`).
            names: of the tasks, for messages.
            seconds: that all of them together may take to answer.
        """
        self.hosts, self.names, self.seconds = list(hosts), list(names), seconds
        self.horizon = np.asarray([host.horizon for host in hosts])
        self._doing = [(host.env.step, host.meaning) for host in hosts]
        self._clock = np.zeros(len(hosts), np.int64)

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
        asked = np.flatnonzero(who).tolist()
        resets = (self.hosts[i].env.reset(seed=None if seeds is None else seeds[i]) for i in asked)
        seen, _ = self._answers(asked, resets, "reset", 2)
        return self._states(asked, seen)

    def step(self, actions: Int[np.ndarray, "N *K"], who: Bool[np.ndarray, " N"]) -> Answers:
        """Take one action in each of those asked.

        Raises:
            EnvironmentFaultError: one raised, took too long, or answered with something impossible.
        """
        asked = np.flatnonzero(who).tolist()
        steps = self._stepping(asked, actions.tolist())
        seen, rewards, ends, cuts, _ = self._answers(asked, steps, "step", 5)
        states = self._states(asked, seen)
        reward = self._spread(asked, self._rewards(asked, rewards))
        ended = self._spread(asked, self._flags(asked, "terminated", ends))
        cut = self._spread(asked, self._flags(asked, "truncated", cuts))
        self._clock += who
        cut = (cut | (self._clock >= self.horizon)) & who & ~ended
        return Answers(states, reward.astype(np.float32), ended, cut)

    def _stepping(self, asked: Sequence[int], numbers: Sequence[Any]) -> Iterator[Any]:
        for i in asked:
            step, meaning = self._doing[i]
            yield step(meaning(numbers[i]))

    def _answers(
        self, asked: Sequence[int], asking: Iterator[Any], what: str, length: int
    ) -> Sequence[Sequence[Any]]:
        """Ask one after the other; the ``length`` parts of what they answer. Whatever goes wrong is named."""
        answers: list[Any] = []

        def now() -> int:
            return asked[min(len(answers), len(asked) - 1)]

        try:
            with answering_within(self.seconds, lambda: self._late(now())):
                for answer in asking:
                    answers.append(answer)
        except MetaQLError:
            raise
        except Exception as error:
            raise EnvironmentFaultError(
                "An environment must not raise.",
                f"{type(error).__name__} in `{what}`, {self._where(now())}: {error}.",
                "Correct the environment; the original exception is chained to this one.",
            ) from error
        for i, answer in zip(asked, answers, strict=True):
            if not isinstance(answer, tuple | list) or len(answer) != length:
                rule = f"`{what}` must return {length} values, as Gymnasium's interface says."
                self._fault(i, rule, answer)
        return list(zip(*answers, strict=True)) or [()] * length

    def _rewards(self, asked: Sequence[int], found: Sequence[Any]) -> Num[np.ndarray, " M"]:
        column = _plain(found, "biuf")
        if column is not None and (np.abs(column) <= LARGEST_REWARD).all():  # false for NaN
            return column
        # Whoever is to blame is found one by one.
        pairs = zip(asked, found, strict=True)
        return np.asarray([checked_reward(one, self._where(i)) for i, one in pairs])

    def _flags(
        self, asked: Sequence[int], name: str, found: Sequence[Any]
    ) -> Bool[np.ndarray, " M"]:
        column = _plain(found, "biu")
        if column is not None:
            return column.astype(bool)
        pairs = zip(asked, found, strict=True)
        return np.asarray([checked_flag(name, one, self._where(i)) for i, one in pairs])

    def _spread(
        self, asked: Sequence[int], rows: Shaped[np.ndarray, "M *D"]
    ) -> Shaped[np.ndarray, "N *D"]:
        """Rows of those asked, and zeros for the others."""
        if len(asked) == len(self.hosts):
            return rows
        everyone = np.zeros((len(self.hosts), *rows.shape[1:]), rows.dtype)
        everyone[asked] = rows
        return everyone

    def _states(self, asked: Sequence[int], found: Sequence[Any]) -> Float[np.ndarray, "N D"]:
        first = self.hosts[0]
        rows = first.flat_all(found)
        if rows is None:
            rows = self._one_by_one(asked, found)
        good = first.within(rows)
        if not good.all():
            worst = int(good.argmin())
            self._fault(asked[worst], f"Observations must lie in {first.space}.", found[worst])
        return self._spread(asked, rows)

    def _one_by_one(self, asked: Sequence[int], found: Sequence[Any]) -> Float[np.ndarray, "M D"]:
        """Observations that are not arrays of one kind, as vectors."""
        first = self.hosts[0]
        vectors = [first.flat(seen) for seen in found]
        for i, seen, vector in zip(asked, found, vectors, strict=True):
            if vector is None:
                self._fault(i, f"Observations must lie in {first.space}.", seen)
        return np.asarray(vectors, np.float32).reshape(-1, first.num_states)

    def _fault(self, index: int, rule: str, found: Any) -> NoReturn:
        raise EnvironmentFaultError(rule, f"Got {found!r} at {self._where(index)}.", REPORT)

    def _late(self, index: int) -> EnvironmentFaultError:
        return EnvironmentFaultError(
            f"All environments together must answer within {self.seconds:g} seconds.",
            f"Nothing came from {self._where(index)}.",
            "Correct the environment, or give the family more `seconds`.",
        )

    def _where(self, index: int) -> str:
        step = self._clock[index] + 1
        return f"step {step} of an episode of task {self.names[index]} ({self.hosts[index].name})"


def _plain(found: Sequence[Any], kinds: str) -> Num[np.ndarray, " M"] | None:
    """Single numbers as an array; None where something is none, or of another kind."""
    try:
        column = np.asarray(found)
    except ValueError:  # parts of different sizes
        return None
    fine = column.shape == (len(found),) and column.dtype.kind in kinds + "f" * (not found)
    return column if fine else None


def check_alike(first: VectorEnvironment, host: VectorEnvironment, name: str) -> None:
    """Raise unless environments can be in one crowd.

    Raises:
        UnsupportedSpaceError: the spaces are not those of the first, or episodes would never end.
    """
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
