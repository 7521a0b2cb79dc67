"""Settings of meta-training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax

from metaql.config import build
from metaql.errors import ConfigError, unknown_name
from metaql.meta.finite_config import FiniteConfig
from metaql.meta.ranges import check_counts, check_episodes, check_multiple, check_shares
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.tasks.families.base import Family, TaskFamily
from metaql.tasks.families.mixture import Mixture
from metaql.tasks.logged import LoggedFamily
from metaql.tasks.simulators import SimulatorFamily

AnyFamily = TaskFamily | SimulatorFamily | LoggedFamily
"""Pure functions, simulators stepped on the host, or logs alone."""


@dataclass(frozen=True, kw_only=True)
class MetaTrainConfig:
    """How long and how to meta-train. All counts are per run unless said otherwise."""

    env_steps: int = 2_000_000
    """Environment steps of meta-training (a floor: whole iterations are run)."""
    lifetimes: int = 256
    """Lifetimes lived in parallel (axis N)."""
    segment_steps: int = 16
    """Steps between two beliefs that enter the loss."""
    segments: int = 4
    """Segments per iteration; one iteration lives ``segments * segment_steps`` steps."""
    epochs: int = 3
    """Times an iteration learns from every segment."""
    generations: int = 8
    """Iterations that a lifetime lasts; every iteration renews one part in ``generations``."""
    episodes: tuple[int, int] = (5, 40)
    """Episodes a lifetime is promised: drawn log-uniformly between these."""
    learning_rate: float = 7e-4
    """Peak rate of Adam."""
    epsilon: float = 0.3
    """Share of modes (ways of acting for one episode) drawn at random while meta-training."""
    trace: float = 0.95
    """Lambda of the returns that the outer Q-learning learns from."""
    episode_discount: float = 0.8
    """Discount per episode of what a lifetime brings later."""
    outer_weight: float = 0.5
    """Weight of the outer Q-learning beside the supervised fit of Q*."""
    bank: int = 1024
    """Tasks sampled and solved exactly at a time."""
    refresh: int = 50
    """Iterations after which the bank is sampled anew."""
    agents: int = 512
    """Q-learning agents whose experience gives the family prior."""
    agent_steps: int = 1024
    """Steps each of them lives."""
    embedding: int = 16
    """Size Z of the task embedding."""
    hidden: int = 32
    """Width of the network's layers."""
    sweeps: int = 4
    """Bellman sweeps per step."""
    checkpoint_every: int = 20
    """Iterations between two checkpoints."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a value out of range.
        """
        check_counts(
            self,
            *("env_steps", "lifetimes", "segment_steps", "segments", "generations", "bank"),
            *("epochs", "refresh", "agents", "agent_steps", "embedding", "hidden", "sweeps"),
            "checkpoint_every",
        )
        check_shares(self, "epsilon", "trace", "episode_discount")
        check_multiple(self, "lifetimes", "generations")
        check_episodes(self.episodes)
        if self.learning_rate <= 0 or self.outer_weight < 0:
            raise ConfigError(
                "`learning_rate` must be > 0 and `outer_weight` >= 0.",
                f"Got {self.learning_rate} and {self.outer_weight}.",
            )

    @property
    def renewed(self) -> int:
        """Lifetimes renewed per iteration."""
        return self.lifetimes // self.generations

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.lifetimes * self.segments * self.segment_steps

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return -(-self.env_steps // self.steps_per_iteration)


CONFIGS = {"belief": MetaTrainConfig, "finite": FiniteConfig, "recurrent": RecurrentConfig}
"""What can be meta-trained, and the settings of each: see `metaql.meta_train`."""
AGENTS = ("auto", *CONFIGS)
AnyConfig = MetaTrainConfig | FiniteConfig | RecurrentConfig


def check_family(family: Any) -> None:
    """Raise `ConfigError` for what is no family of tasks."""
    if not isinstance(family, AnyFamily):
        raise ConfigError(
            "`family` must be a family of tasks.",
            f"Got {family!r}.",
            "Make one: metaql.families.cart_pole(), say.",
        )


def config_class(family: AnyFamily, agent: str) -> type[AnyConfig]:
    """The settings that training such an agent on such a family has.

    Raises:
        UnknownNameError: no such agent.
        ConfigError: an agent that cannot learn such a family.
    """
    check_family(family)
    if agent not in AGENTS:
        raise unknown_name("`agent`", agent, AGENTS)
    if agent in ("belief", "finite") and not isinstance(family, Family):
        raise ConfigError(
            "BeliefQ and FiniteQ learn finite families only.",
            f"{family.name!r} is none.",
            'Use agent="recurrent".',
        )
    if agent == "finite" and not can_learn(agent, family):
        raise ConfigError(
            "FiniteQ is trained on one family.",
            f"Got {family.name!r}, which is several.",
            'For tasks of any kind there is metaql.load("finite"); or use agent="belief".',
        )
    return CONFIGS[_usual(family) if agent == "auto" else agent]


def _usual(family: AnyFamily) -> str:
    """The agent for whoever names none: BeliefQ where it is worth something to know states by number."""
    if not isinstance(family, Family):
        return "recurrent"
    if not can_learn("finite", family):
        return "belief"
    if not family.shares_states:
        return "finite"
    task = jax.eval_shape(lambda key: family.sample(key, "train"), jax.random.key(0))
    return "belief" if task.transition.shape[0] > 1 else "finite"


def agent_with(settings: Mapping[str, Any]) -> str:
    """The agent whose settings are the most like these, as another version may have written them.

    ``"auto"``: they are no agent's.
    """
    if not any(_known(kind) & settings.keys() for kind in CONFIGS.values()):
        return "auto"
    return min(CONFIGS, key=lambda name: len(_known(CONFIGS[name]) ^ settings.keys()))


def name_of(kind: type[AnyConfig]) -> str:
    """The agent that has such settings."""
    return next(name for name, own in CONFIGS.items() if own is kind)


def _known(kind: type[AnyConfig]) -> set[str]:
    return {field.name for field in fields(kind)}


def can_learn(agent: str, family: AnyFamily) -> bool:
    """Whether an agent learns such families: RecurrentQ any, FiniteQ one finite family, BeliefQ several."""
    finite = isinstance(family, Family)
    return agent == "recurrent" or (
        finite and (agent == "belief" or not isinstance(family, Mixture))
    )


def settings_for(family: AnyFamily, agent: str, given: Mapping[str, Any], source: str) -> AnyConfig:
    """Those given, else what suits the family, else the usual ones.

    Raises:
        UnknownNameError: no such agent.
        ConfigError: an agent that cannot learn such a family, or a setting that does not exist or fit.
    """
    wanted = config_class(family, agent)
    suits: Mapping[str, Any] = {}
    if wanted is RecurrentConfig and isinstance(family, TaskFamily):
        suits = family.suits
    _check_owner(family, wanted, given, source)
    return build(wanted, {**suits, **given}, source)


def _check_owner(
    family: AnyFamily, wanted: type[AnyConfig], given: Mapping[str, Any], source: str
) -> None:
    """Raise `ConfigError` for a setting that another kind of agent has."""
    own = name_of(wanted)
    for key in given:
        having = [name for name, kind in CONFIGS.items() if key in _known(kind)]
        if not having or own in having:
            continue
        fitting = [name for name in having if can_learn(name, family)]
        ask = " or ".join(f"agent={name!r} (--agent {name})" for name in fitting)
        raise ConfigError(
            f"{key!r} is a setting of the agent {' or '.join(map(repr, having))}.",
            f"{source} has it, but the agent that would learn {family.name!r} is {own!r}.",
            f"Ask for {ask}, or leave it out." if fitting else "Leave it out.",
        )
