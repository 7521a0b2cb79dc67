"""Ranges that the settings of every meta-training have in common."""

from __future__ import annotations

from typing import Any

from metaql.errors import ConfigError


def check_counts(config: Any, *names: str) -> None:
    """Each at least 1.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"`{name}` must be at least 1.", f"Got {getattr(config, name)}.")


def check_shares(config: Any, *names: str) -> None:
    """Each in [0, 1].

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"`{name}` must be in [0, 1].", f"Got {getattr(config, name)}.")


def check_multiple(config: Any, whole: str, parts: str) -> None:
    """As many of the first for each of the second.

    Raises:
        ConfigError: some are left over.
    """
    many, by = getattr(config, whole), getattr(config, parts)
    if many % by:
        raise ConfigError(f"`{whole}` must be a multiple of `{parts}`.", f"Got {many} and {by}.")


def check_episodes(episodes: tuple[int, int]) -> None:
    """Least and largest number of episodes of a lifetime.

    Raises:
        ConfigError: the least is below 1 or above the largest.
    """
    low, high = episodes
    if not 1 <= low <= high:
        raise ConfigError("`episodes` must be (low, high), 1 <= low <= high.", f"Got {low, high}.")
