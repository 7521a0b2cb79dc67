"""A meta-trained RecurrentQ: adapt it to a new task in context, save it, load it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from metaql import checkpoint
from metaql.config import build, check_whole
from metaql.embedding.recurrent import Sight, sight_of
from metaql.errors import EnvironmentFaultError, UnsupportedSpaceError, UsageError
from metaql.meta.adapt import (
    Adaptation,
    Lived,
    NotingCompanion,
    TurnCompanion,
    check_request,
    live_on_host,
)
from metaql.meta.gradient import GradientSteps, adapted_weights
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.replay import Lifetimes, noted
from metaql.meta.unlike import unusual_lifetime
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import Context, RecurrentQ
from metaql.tasks.host import HostEnvironment, lent, open_environment
from metaql.tasks.vectors import VectorEnvironment, open_vectors
from metaql.types import Task, Transition

KIND = "recurrent-agent"
HORIZON = "horizon"
"""Key of the card: steps of the longest episode in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentAgent:
    """Weights of RecurrentQ for families with the observations and actions it was trained on."""

    learner: RecurrentQ
    levels: tuple[float, ...] | None
    """What the actions mean where the environment wants numbers; None: they are numbered."""
    family_name: str
    card: dict[str, Any]
    """How it came about: seed, steps, settings."""

    def __repr__(self) -> str:
        """One line: the weights would fill pages."""
        return f"RecurrentAgent({self.family_name!r}, env_steps={self.card.get('env_steps')})"

    @property
    def actions(self) -> tuple[int, ...]:
        """``(A,)``, or ``(K, A)`` where an action has K parts."""
        return self.learner.network.actions

    @property
    def usual_episodes(self) -> int:
        """Most episodes that a lifetime had in training."""
        return int(self.card["train"]["episodes"][1])

    def learner_for(self, num_states: int, num_actions: int) -> RecurrentQ:
        """The learner for finite tasks of this shape.

        Raises:
            UnsupportedSpaceError: trained on tasks of another shape.
        """
        self._check(Sight(numbers=num_states), (num_actions,), "the task")
        return self.learner

    def learner_on(self, task: Task) -> RecurrentQ:
        """The learner for a task of any kind.

        Raises:
            UnsupportedSpaceError: trained on tasks with other observations or actions.
        """
        self._check(sight_of(task), task.spec(1).action_mask.shape, "the task")
        return self.learner

    def open(self, env: Any, **kwargs: Any) -> HostEnvironment:
        """Open an environment as this agent sees it; ``kwargs`` go to ``gymnasium.make``.

        Where it declares no time limit, episodes are truncated after as many steps as the longest ones in
        training had.

        Raises:
            UnknownNameError: no such environment.
            UnsupportedSpaceError: a space that cannot be used.
            UsageError: ``gymnasium.make`` refused.
        """
        if self.learner.sight.numbers:
            host = open_environment(env, **kwargs)
        else:
            host = open_vectors(env, self.levels, **kwargs)
        if HORIZON in self.card:
            host = copy.copy(host)  # what was given may be used by others
            host.assume(self.card[HORIZON])
        return host

    def adapt(
        self,
        env: Any,
        *,
        episodes: int | None = None,
        seed: int = 0,
        on_episode: Callable[[int, float, int], None] = lambda index, total, length: None,
    ) -> RecurrentAdapted:
        """Live ``episodes`` episodes of a new task; the memory alone adapts, there are no gradients.

        Args:
            env: a Gymnasium id or environment with the observations and actions of the family it was
                trained on, or what `open_environment` made of one.
            episodes: how many; the agent is told, and explores accordingly. None: the most that a lifetime
                had in training; of more it knows nothing (`RecurrentAdapted.warnings` says so).
            seed: of the environment's first reset and of the agent.
            on_episode: called after each episode with its index, return and length.

        Raises:
            UsageError: fewer than one episode, or a negative seed.
            UnknownNameError: no such environment.
            UnsupportedSpaceError: spaces other than those of the family.
            EnvironmentFaultError: the environment broke its contract; the error's ``adapted``
                attribute holds what was learned until then.
        """
        episodes = self.usual_episodes if episodes is None else episodes
        check_request(episodes, seed)
        host = self._opened(env)
        companion = self._companion(self.learner, host, episodes, seed)
        with lent(env, host):
            return live_on_host(companion, host, episodes, seed, on_episode)

    def adapt_by_gradient(
        self,
        env: Any,
        *,
        lifetimes: int = 3,
        episodes: int | None = None,
        replay: Lifetimes | None = None,
        how: GradientSteps | None = None,
        seed: int = 0,
        on_episode: Callable[[int, float, int], None] = lambda index, total, length: None,
    ) -> RecurrentAdapted:
        """Live several lifetimes of one task; between them gradient steps adapt the weights too.

        Where a task lies outside of what was trained on, the memory alone falls short; inside it needs no
        help. See `metaql.meta.gradient`. Every lifetime starts with an empty memory.

        Args:
            env: as in `adapt`.
            lifetimes: how many; the last one is followed by no gradient steps.
            episodes: of every lifetime; None: the most that one had in training.
            replay: lifetimes of training tasks (`metaql.meta.replay.lived_in`), weighed by how much they are
                like the new ones; None: the new ones alone.
            how: how many steps, and how far.
            seed: of the environment's first reset and of the agent.
            on_episode: as in `adapt`; the index goes on from one lifetime to the next.

        Raises:
            UsageError, UnknownNameError, UnsupportedSpaceError, EnvironmentFaultError: as in `adapt`.
        """
        episodes = self.usual_episodes if episodes is None else episodes
        check_request(episodes, seed)
        check_whole("lifetimes", lifetimes, 1)
        host, learner = self._opened(env), self.learner
        config = build(RecurrentConfig, self.card["train"], "the agent's card")
        notes: list[list[Transition]] = []
        lived: list[RecurrentAdapted] = []
        for number, key in enumerate(jax.random.split(jax.random.key(seed), lifetimes)):
            if notes:
                own = noted(notes, host.spec(episodes))
                learner, _ = _adapted_weights(
                    self.learner, own, replay, key, config, how or GradientSteps()
                )
            own_seed = int(np.random.default_rng([seed, number]).integers(2**31))
            companion = NotingCompanion(self._companion(learner, host, episodes, own_seed))
            begun = number * episodes

            def told(index: int, total: float, length: int, begun: int = begun) -> None:
                on_episode(begun + index, total, length)

            try:
                lived.append(live_on_host(companion, host, episodes, own_seed, told))
            except EnvironmentFaultError as error:
                came = [*lived, *filter(None, [getattr(error, "adapted", None)])]
                if came:
                    error.adapted = _joined(came)  # pyright: ignore[reportAttributeAccessIssue]
                raise
            notes.append(companion.notes)
        return _joined(lived)

    def _opened(self, env: Any) -> HostEnvironment:
        """The environment, if it has the spaces of the family."""
        host = self.open(env)
        self.check_host(host)
        return host

    def check_host(self, host: HostEnvironment) -> None:
        """Raise `UnsupportedSpaceError` unless an opened environment has the spaces of the family."""
        size = host.num_states
        vectors = isinstance(host, VectorEnvironment)
        sight = Sight(entries=size) if vectors else Sight(numbers=size)
        self._check(sight, host.action.shape, host.name)

    def _companion(
        self, learner: RecurrentQ, host: HostEnvironment, episodes: int, seed: int
    ) -> TurnCompanion:
        """A learner beside an environment; what it ends with is a `RecurrentAdapted`."""
        warnings = [*unusual_lifetime(self.card, episodes), *host.warnings]

        def conclude(memory: Context, lived: Lived) -> RecurrentAdapted:
            return RecurrentAdapted(
                returns=lived.returns,
                lengths=lived.lengths,
                learner=learner,
                memory=memory,
                host=host,
                warnings=warnings,
            )

        return TurnCompanion(learner, host.spec(episodes), seed, conclude)

    def _check(self, sight: Sight, actions: tuple[int, ...], what: str) -> None:
        own = self.learner.sight
        if (*_kind(own), self.actions) != (*_kind(sight), actions):
            raise UnsupportedSpaceError(
                f"RecurrentQ fits tasks with the spaces of {self.family_name!r} only: "
                f"{_words(own, self.actions)}.",
                f"{what} has {_words(sight, actions)}.",
                "Train on a family with these spaces (those of numbered states in logs are those of a "
                "SimulatorFamily); any finite task is for the agent `finite`.",
            )

    def save(self, path: str | Path) -> None:
        """Write the agent to the folder ``path``, atomically.

        Raises:
            CheckpointError: the folder cannot be written or holds something else.
        """
        sight = self.learner.sight
        extra = {
            "sizes": {
                "numbers": sight.numbers,
                "entries": sight.mean.shape[0],
                "columns": sight.columns,
                "actions": list(self.actions),
            },
            "networks": self.learner.sizes._asdict(),
            "levels": self.levels,
            "family": self.family_name,
            "card": self.card,
        }
        checkpoint.save(path, self.learner, kind=KIND, extra=extra)


def _joined(lived: Sequence[RecurrentAdapted]) -> RecurrentAdapted:
    """The last of several lifetimes, with the episodes of all of them."""
    returns = np.concatenate([each.returns for each in lived])
    lengths = np.concatenate([each.lengths for each in lived])
    return dataclasses.replace(lived[-1], returns=returns, lengths=lengths)


def _kind(sight: Sight) -> tuple[int, int]:
    return sight.numbers, sight.mean.shape[0]


def _words(sight: Sight, actions: tuple[int, ...]) -> str:
    numbers, entries = _kind(sight)
    seen = f"{numbers} states" if numbers else f"{entries} observation entries"
    *parts, count = actions
    each = f"{parts[0]} parts of " if parts else ""
    return f"{seen} and {each}{count} actions"


def load_recurrent(folder: Path) -> RecurrentAgent:
    """Read what `RecurrentAgent.save` wrote.

    Raises:
        CheckpointError: it is damaged or of another version or kind.
    """
    extra = checkpoint.read_extra(folder, kind=KIND)
    sizes = extra["sizes"]

    def like() -> RecurrentQ:
        sight = Sight(**{name: sizes[name] for name in ("numbers", "entries", "columns")})
        return RecurrentQ(
            jax.random.key(0),
            sight=sight,
            actions=tuple(sizes["actions"]),
            sizes=Sizes(**extra["networks"]),
        )

    learner, _ = checkpoint.load(folder, eqx.filter_eval_shape(like), kind=KIND)
    levels = None if extra["levels"] is None else tuple(extra["levels"])
    return RecurrentAgent(
        learner=learner, levels=levels, family_name=extra["family"], card=extra["card"]
    )


_adapted_weights = eqx.filter_jit(adapted_weights)


@eqx.filter_jit
def _values(
    learner: RecurrentQ, memory: Context, clock: Float[np.ndarray, " N"], seen: Any
) -> Float[np.ndarray, "N A"]:
    def one(step: Any, observation: Any) -> Any:
        now = memory._replace(clock=memory.clock._replace(step=step))
        return learner.values(now, observation)

    return jax.vmap(one)(clock, seen)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class RecurrentAdapted(Adaptation):
    """RecurrentQ, adapted to one task."""

    learner: RecurrentQ
    memory: Context
    """What it knows of the task."""
    host: HostEnvironment

    def predict(
        self,
        obs: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """Choose greedy actions without learning, as Stable-Baselines3's ``predict``.

        It acts as in one more, last episode on what is known of the task.

        Args:
            obs: one observation, or an array of them, ``[N, ...]``.
            state: steps taken in the episode so far, as the last call returned it, ``[N]``; None: none.
            episode_start: true where an episode begins: its steps are counted anew.
            deterministic: must be true: nothing is explored any more.

        Returns:
            The action or actions, as the environment wants them, and ``state`` for the next call.

        Raises:
            UsageError: an observation outside the environment's space, or ``deterministic=False``.
        """
        if not deterministic:
            raise UsageError(
                "`predict` of RecurrentQ is deterministic.", "Got deterministic=False."
            )
        rows, single = self.host.batch(obs)
        try:
            begun = False if episode_start is None else np.asarray(episode_start, bool)
            steps = np.where(begun, 0.0, 0.0 if state is None else np.asarray(state, np.float32))
            steps = np.broadcast_to(steps, len(rows))
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"`state` and `episode_start` belong to {len(rows)} observations.",
                f"Got {state!r} and {episode_start!r}.",
            ) from error
        clock = self.memory.clock._replace(episode=self.memory.spec.episodes - 1.0)
        memory = self.memory._replace(clock=clock)
        values = _values(self.learner, memory, steps.astype(np.float32), jnp.asarray(rows))
        actions = [self.host.action(index) for index in np.asarray(values).argmax(-1)]
        return (actions[0] if single else np.asarray(actions)), steps + 1.0
