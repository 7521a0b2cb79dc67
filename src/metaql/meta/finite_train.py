"""Meta-train `FiniteQ`: fit what tasks have in common, then climb what lifetimes return.

1. Q-learning agents live in training tasks, and their evidence gives the `Hyperprior` (`hyperfit`).
2. Evolution strategies find the weights of `Curiosity` that return most over whole lifetimes
   (`evolve`): min over M of the sum over tasks of L(A(T_i), T_i), the loss being minus the return,
   on a scale where the uniformly random policy has 0 and the optimum 1. What counts is the return of
   the whole lifetime, of the adapted agent at its end (exactly), or both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from metaql import checkpoint
from metaql.embedding.hyperprior import Hyperprior, broad
from metaql.errors import ConfigError
from metaql.files import readable
from metaql.meta.evolve import Climb, climb, start_climb
from metaql.meta.experience import Judge, q_learning_experience
from metaql.meta.hyperfit import fit_hyperprior
from metaql.meta.lifetime import live
from metaql.policy.curiosity import Curiosity
from metaql.policy.finiteq import FiniteQ, Knowledge
from metaql.tasks.exact import greedy_policy, optimal_return, policy_return, uniform_policy
from metaql.tasks.families.base import Family
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

_KIND = "finite-climb"
_WORTHWHILE = 0.02
"""A task counts where optimum and random differ by this share of the larger."""
_WORST = -2.0
"""Score of an episode below which all are alike."""


class Course(NamedTuple):
    """Lifetimes of one family to train on."""

    family: Family
    episodes: int
    """Episodes a lifetime is promised."""
    steps: int
    """Steps after which it is cut off; episodes not finished by then score 0."""
    lifetimes: int = 48
    """Lived per score."""
    slots: int | None = None
    """Successors per pair, as in `FiniteQ`."""
    adapted: float = 0.0
    """Weight, in [0, 1], of what the greedy policy is worth that the agent believes in at the end; the
    rest is that of the episodes lived. 1 where many more are promised than can be lived here: then what
    exploring costs is nothing beside what it finds.
    """


@dataclass(frozen=True, kw_only=True)
class FiniteTrainConfig:
    """How long to train."""

    agents: int = 256
    """Q-learning agents per course."""
    agent_steps: int = 512
    """Steps each of them lives."""
    bank: int = 512
    """Tasks per course that scores draw from."""
    one_family: bool = False
    """Whether all tasks are made alike, as in `fit_hyperprior`."""
    iterations: int = 40
    """Of the evolution strategy."""
    pairs: int = 6
    """Mirrored pairs of perturbations per iteration."""
    spread: float = 0.25
    """Standard deviation of the perturbations."""
    rate: float = 0.08
    """Step size."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a value out of range.
        """
        for name in ("agents", "agent_steps", "bank", "pairs", "spread", "rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"`{name}` must be above 0.", f"Got {getattr(self, name)}.")
        if self.iterations < 0:
            raise ConfigError("`iterations` must be at least 0.", f"Got {self.iterations}.")


class _Bank(NamedTuple):
    tasks: FiniteTask
    random: Float[np.ndarray, " N"]
    optimum: Float[np.ndarray, " N"]
    usable: np.ndarray


def train_finite(
    courses: Sequence[Course],
    config: FiniteTrainConfig | None = None,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    on_progress: Callable[[str, float, float], None] = lambda stage, done, score: None,
) -> tuple[Hyperprior, Curiosity]:
    """Train on ``courses``, which count alike.

    Args:
        courses: what to live; training splits only are drawn.
        config: how long.
        seed: everything random follows from it.
        folder: where to keep the state after every iteration; training that was interrupted goes on
            from there to the same result. None: nowhere.
        on_progress: called with the stage, the share of it that is done, and the score.

    Raises:
        ConfigError: no course.
    """
    config = config or FiniteTrainConfig()
    if not courses:
        raise ConfigError("`courses` needs at least one course.", "Got none.")
    key_agents, key_banks, key_lives = jax.random.split(jax.random.key(seed), 3)
    start, unravel = ravel_pytree(Curiosity())
    blank = start_climb(np.asarray(start, np.float64))
    saved = _saved(folder, blank)
    prior, state = saved or (_fit(courses, config, key_agents, on_progress), blank)
    _save(folder, prior, state)
    keys = jax.random.split(key_banks, len(courses))
    banks = [_bank(each, config.bank, key) for each, key in zip(courses, keys, strict=True)]

    def score(weights: Float[np.ndarray, " P"], iteration: int) -> float:
        curiosity = unravel(jnp.asarray(weights, start.dtype))
        key = jax.random.fold_in(key_lives, iteration)

        def one(index: int) -> float:
            about = (courses[index], banks[index], prior, curiosity)
            return course_score(*about, jax.random.fold_in(key, index))

        return float(np.mean(list(pool.map(one, range(len(courses))))))

    # A course keeps one core busy: side by side they compile and live in half the time.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while state.iteration < config.iterations:
            state, mean = climb(
                state,
                score,
                pairs=config.pairs,
                spread=config.spread,
                rate=config.rate,
                seed=seed,
            )
            _save(folder, prior, state)
            on_progress("exploring", state.iteration / config.iterations, mean)
    return prior, unravel(jnp.asarray(state.average, start.dtype))


def _save(folder: str | Path | None, prior: Hyperprior, state: Climb) -> None:
    if folder is not None:
        checkpoint.save(folder, (prior, state), kind=_KIND, extra={"arms": prior.num_arms})


def _saved(folder: str | Path | None, blank: Climb) -> tuple[Hyperprior, Climb] | None:
    """What an interrupted training left in ``folder``."""
    if folder is None or not (readable(Path(folder)) / checkpoint.MANIFEST).is_file():
        return None
    arms = checkpoint.read_extra(Path(folder), kind=_KIND).get("arms")
    return checkpoint.load(folder, (broad(arms), blank), kind=_KIND)[0]


def _fit(
    courses: Sequence[Course],
    config: FiniteTrainConfig,
    key: PRNGKey,
    on_progress: Callable[[str, float, float], None],
) -> Hyperprior:
    """The hyperprior that Q-learning agents in every course suggest."""
    experience = []
    for index, course in enumerate(courses):
        experience.append(
            q_learning_experience(
                course.family,
                jax.random.fold_in(key, index),
                agents=config.agents,
                steps=config.agent_steps,
                scribe=Judge(broad(), course.slots),
            )
        )
        on_progress("Q-learning agents", (index + 1) / len(courses), 0.0)
    return fit_hyperprior(experience, one_family=config.one_family)


def _bank(course: Course, size: int, key: PRNGKey) -> _Bank:
    """Training tasks with what random and optimal policies return in them."""

    def levels(task: FiniteTask) -> tuple[Array, Array]:
        return policy_return(task, uniform_policy(task)), optimal_return(task)

    tasks = course.family.tasks(key, size, "train")
    random, optimum = (np.asarray(x) for x in jax.jit(jax.vmap(levels))(tasks))
    apart = optimum - random > _WORTHWHILE * np.maximum(np.abs(optimum), np.abs(random))
    if not apart.any():
        raise ConfigError(
            "Exploring is learned where it matters what one does.",
            f"In none of {size} tasks of {course.family.name!r} is the optimum better than acting at random.",
            "Leave the course out.",
        )
    return _Bank(tasks, random, optimum, np.nonzero(apart)[0])


def course_score(
    course: Course, bank: _Bank, prior: Hyperprior, curiosity: Curiosity, key: PRNGKey
) -> float:
    """Mean score, 0 the random policy and 1 the optimum; see `Course` for what counts."""
    learner = FiniteQ(prior, curiosity, slots=course.slots)
    key_tasks, key_lives = jax.random.split(key)
    picked = np.asarray(jax.random.choice(key_tasks, jnp.asarray(bank.usable), (course.lifetimes,)))
    tasks = jax.tree.map(lambda x: x[picked], bank.tasks)
    lives = live(
        learner,
        tasks,
        jax.random.split(key_lives, course.lifetimes),
        episodes=course.episodes,
        max_steps=course.steps,
    )
    finished = np.arange(course.episodes) < lives.finished[:, None]
    random, optimum = (level[picked][:, None] for level in (bank.random, bank.optimum))

    def score(returns: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
        return np.maximum((returns - random) / (optimum - random), _WORST)

    lived = np.where(finished, score(lives.returns), 0.0).mean()
    if course.adapted == 0:
        return float(lived)
    adapted = score(np.asarray(_adapted_returns(learner, tasks, lives.memory))[:, None]).mean()
    return float(lived + course.adapted * (adapted - lived))


@eqx.filter_jit
def _adapted_returns(learner: FiniteQ, tasks: FiniteTask, memory: Knowledge) -> Float[Array, " N"]:
    """Exact returns of the policies that are greedy on what is believed."""

    def one(task: FiniteTask, memory: Knowledge) -> Float[Array, ""]:
        return policy_return(task, greedy_policy(learner.believed(memory).q, task.action_mask))

    return jax.vmap(one)(tasks, memory)
