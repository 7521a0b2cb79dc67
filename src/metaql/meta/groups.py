"""Groups of families that train together: alike in shape, and with a family prior of their own or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from metaql.embedding.prior import fit_prior
from metaql.embedding.statistics import Statistics
from metaql.meta.config import MetaTrainConfig
from metaql.meta.experience import q_learning_experience
from metaql.tasks.families.base import Family
from metaql.tasks.families.mixture import Mixture
from metaql.types import PRNGKey


class Group(NamedTuple):
    """One stream of training tasks."""

    family: Family
    prior_name: str | None
    """Key of its family prior; None: its tasks share no states, and nothing is known beforehand."""


def groups_of(family: Family) -> tuple[Group, ...]:
    """Split a family into groups: each part that shares its states, and all the others together."""
    parts = family.parts if isinstance(family, Mixture) else (family,)
    weights = family.weights if isinstance(family, Mixture) else (1.0,)
    sharing = [Group(part, prior_name(part)) for part in parts if part.shares_states]
    others = [pair for pair in zip(parts, weights, strict=True) if not pair[0].shares_states]
    if not others:
        return tuple(sharing)
    rest = others[0][0] if len(others) == 1 else Mixture(others)
    return (*sharing, Group(rest, None))


def prior_name(family: Family) -> str:
    """``family/SxA``: a prior fits tasks of its own shape only."""
    shape = jax.eval_shape(lambda key: family.sample(key, "train"), jax.random.key(0))
    num_states, num_actions, _ = shape.transition.shape
    return f"{family.name}/{num_states}x{num_actions}"


def fit_priors(
    groups: tuple[Group, ...],
    config: MetaTrainConfig,
    key: PRNGKey,
    on_progress: Callable[[str, float], None],
) -> dict[str, Statistics]:
    """Let plain Q-learning agents live in every group that shares its states, and fit its prior."""
    priors = {}
    keys = jax.random.split(key, len(groups))
    for group, group_key in zip(groups, keys, strict=True):
        if group.prior_name is None:
            continue
        on_progress("Q-learning agents", 0.0)
        experience = q_learning_experience(
            group.family,
            group_key,
            agents=config.agents,
            steps=config.agent_steps,
            on_progress=lambda done: on_progress("Q-learning agents", done),
        )
        on_progress("family prior", 0.0)
        priors[group.prior_name] = fit_prior(experience)
        on_progress("family prior", 1.0)
    return priors
