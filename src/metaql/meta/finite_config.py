"""Settings of the meta-training of FiniteQ on one family."""

from __future__ import annotations

from dataclasses import dataclass

from metaql.errors import ConfigError
from metaql.meta.ranges import check_counts


@dataclass(frozen=True, kw_only=True)
class FiniteConfig:
    """How long and how to meta-train `metaql.policy.finiteq.FiniteQ` on a family of its own."""

    env_steps: int = 131_072
    """Environment steps of all Q-learning agents (a floor: whole iterations are run)."""
    agents: int = 256
    """Q-learning agents, each in a training task of its own."""
    segment_steps: int = 64
    """Steps that each of them lives in one iteration."""
    interval_tasks: int = 128
    """Training tasks in which FiniteQ lives, at the end, to see how far its intervals must reach; 0: they are
    those of the shipped agent.
    """
    checkpoint_every: int = 4
    """Iterations between two checkpoints."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a value out of range.
        """
        check_counts(self, "env_steps", "agents", "segment_steps", "checkpoint_every")
        if self.interval_tasks < 0:
            raise ConfigError("`interval_tasks` must be at least 0.", f"Got {self.interval_tasks}.")

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.agents * self.segment_steps

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return -(-self.env_steps // self.steps_per_iteration)
