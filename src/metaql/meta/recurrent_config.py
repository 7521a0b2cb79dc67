"""Settings of the meta-training of RecurrentQ."""

from __future__ import annotations

from dataclasses import dataclass

from metaql.errors import ConfigError
from metaql.meta.ranges import check_counts, check_episodes, check_multiple, check_shares
from metaql.policy.network import Sizes


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """How long and how to meta-train `metaql.policy.recurrentq.RecurrentQ`."""

    env_steps: int = 2_000_000
    """Environment steps of meta-training (a floor: whole iterations are run)."""
    lifetimes: int = 128
    """Lifetimes lived in parallel (axis N). More are faster and learn less from each step: what counts is the
    number of updates."""
    segment_steps: int = 64
    """Steps per iteration; gradients reach so far back. A lifetime that is over is renewed between two."""
    episodes: tuple[int, int] = (4, 4)
    """Episodes a lifetime is promised: drawn uniformly between these."""
    epochs: int = 2
    """Times an iteration learns from every segment."""
    minibatches: int = 8
    """Parts the lifetimes are divided into for the updates."""
    learning_rate: float = 1e-3
    """Peak rate of RAdam; it falls to a hundredth."""
    discount: float = 0.95
    """Per step, across the ends of episodes; a lifetime that is over is worth nothing more."""
    episode_discount: float = 0.8
    """On top, for every end of an episode: else falling early would only bring the next one sooner."""
    trace: float = 0.9
    """Lambda of the returns."""
    action_gap: float = 0.0
    """Share of what an action is worth less than the best one by which its target is lowered. Makes
    differences between actions up to ``1 / (1 - action_gap)`` times as large: helps where a single step
    changes little of what a lifetime brings, as in the control of a body (try 0.9)."""
    epsilon: float = 0.02
    """Share of random actions at the end; it starts at 1 and gets there after ``explore`` of the steps."""
    explore: float = 0.4
    """Share of the training over which epsilon falls."""
    epsilon_spread: float = 0.0
    """Every episode raises epsilon to a power drawn from 1 to 1 + ``epsilon_spread``: some explore much,
    others hardly. Helps where what the first episode leaves unknown decides what the next ones can earn
    (try 4, with ``explore`` 0.7)."""
    bank: int = 1024
    """Tasks sampled at a time; of simulators, a list, as many as live side by side are there."""
    refresh: int = 50
    """Iterations after which the bank is sampled anew; simulators change with every iteration."""
    hidden: int = 64
    """Size of the recurrent state, the task embedding."""
    width: int = 64
    """Width of the Q-network's layers."""
    context: bool = True
    """False: no task embedding (and no ``features``), all tasks are as one: multi-task Q-learning, a
    baseline."""
    generated: bool = False
    """True: the embedding generates weights of the Q-network's last layer too."""
    features: int = 0
    """Features on which what is believed of a task is a regression, put together exactly; 0: none. Vectors
    only: helps where many steps tell the task together, as distances tell a goal (try 32)."""
    conservative: float = 0.1
    """Learning from logs: weight of what holds down the values of actions that they do not show."""
    checkpoint_every: int = 50
    """Iterations between two checkpoints."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a value out of range.
        """
        check_counts(
            self,
            *("env_steps", "lifetimes", "segment_steps", "epochs", "minibatches", "bank"),
            *("refresh", "hidden", "width", "checkpoint_every"),
        )
        check_shares(self, "discount", "episode_discount", "trace", "epsilon", "explore")
        check_episodes(self.episodes)
        check_multiple(self, "lifetimes", "minibatches")
        if not 0 <= self.action_gap < 1:
            raise ConfigError("`action_gap` must be in [0, 1).", f"Got {self.action_gap}.")
        for name in ("epsilon_spread", "conservative", "features"):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}` must not be negative.", f"Got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise ConfigError("`learning_rate` must be above 0.", f"Got {self.learning_rate}.")

    @property
    def sizes(self) -> Sizes:
        """Of the networks."""
        return Sizes(self.hidden, self.width, self.context, self.generated, self.features)

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.lifetimes * self.segment_steps

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return -(-self.env_steps // self.steps_per_iteration)
