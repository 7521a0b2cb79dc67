"""Families of tasks: one file each, and one place to find them by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaql.errors import ConfigError, did_you_mean, unknown_name
from metaql.tasks.families.acrobot import Acrobot
from metaql.tasks.families.bandit import Bandit
from metaql.tasks.families.base import SPLITS, Family, TaskFamily, check_split, split_key
from metaql.tasks.families.cart_pole import CartPole
from metaql.tasks.families.chain import Chain
from metaql.tasks.families.changing import Changing
from metaql.tasks.families.frozen_lake import FrozenLake
from metaql.tasks.families.hidden_goal import DarkRoom, GridNavi
from metaql.tasks.families.key_to_door import KeyToDoor
from metaql.tasks.families.mixture import Mixture
from metaql.tasks.families.navigation import Navigation
from metaql.tasks.families.pendulum import Pendulum
from metaql.tasks.families.random_mdp import RandomMDP
from metaql.tasks.families.worlds import Worlds

# Lower-case names, so that ``metaql.families.frozen_lake(size=4)`` reads as it should.
acrobot = Acrobot
bandit = Bandit
cart_pole = CartPole
chain = Chain
changing = Changing
dark_room = DarkRoom
frozen_lake = FrozenLake
grid_navi = GridNavi
key_to_door = KeyToDoor
mixture = Mixture
navigation = Navigation
pendulum = Pendulum
random_mdp = RandomMDP
worlds = Worlds

FAMILIES: Mapping[str, type[Family]] = {
    family.name: family
    for family in (
        Navigation,
        FrozenLake,
        GridNavi,
        DarkRoom,
        RandomMDP,
        Chain,
        Bandit,
        Worlds,
        Mixture,
    )
}
"""Every finite family that has a name."""
RECURRENT_FAMILIES: Mapping[str, type[TaskFamily]] = {
    family.name: family for family in (CartPole, Pendulum, Acrobot, KeyToDoor, Changing)
}
"""Families that only RecurrentQ can learn: observations are vectors, or hide a part of the state."""
DEFAULT_FAMILY = "navigation"
"""What is meant when no family is named."""

__all__ = [
    "DEFAULT_FAMILY",
    "FAMILIES",
    "RECURRENT_FAMILIES",
    "SPLITS",
    "Acrobot",
    "Bandit",
    "CartPole",
    "Chain",
    "Changing",
    "DarkRoom",
    "Family",
    "FrozenLake",
    "GridNavi",
    "KeyToDoor",
    "Mixture",
    "Navigation",
    "Pendulum",
    "RandomMDP",
    "TaskFamily",
    "Worlds",
    "acrobot",
    "bandit",
    "cart_pole",
    "chain",
    "changing",
    "check_split",
    "dark_room",
    "frozen_lake",
    "grid_navi",
    "key_to_door",
    "make",
    "mixture",
    "navigation",
    "pendulum",
    "random_mdp",
    "split_key",
    "worlds",
]


def make(name: str = DEFAULT_FAMILY, **options: Any) -> TaskFamily:
    """Build a family by name, its options checked: what the command line and config files use.

    Raises:
        UnknownNameError: no family of this name.
        ConfigError: an option that does not exist, has the wrong type or is out of range.

    Example:
        >>> make("frozen_lake", size=3).name
        'frozen_lake'
    """
    named = {**FAMILIES, **RECURRENT_FAMILIES}
    if name not in named:
        raise unknown_name("Family", name, named)
    known = inspect.signature(named[name].__init__).parameters
    valid = {key: known[key].default for key in known if key != "self"}
    for key, value in options.items():
        _check_option(name, key, value, valid)
    return named[name](**options)


def _check_option(family: str, key: str, value: Any, valid: dict[str, Any]) -> None:
    """Raise unless the option exists and its value is of the kind of its default."""
    if key not in valid:
        raise ConfigError(
            f"{family!r} has no option {key!r}.",
            f"Its options are: {', '.join(sorted(valid)) or 'none'}.",
            did_you_mean(key, valid),
        )
    default = valid[key]
    if key == "parts":
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(
                f"Option 'parts' of {family!r} must list families.",
                f"Got {value!r}.",
                "In Python: metaql.families.mixture([metaql.families.chain(), metaql.families.worlds()]).",
            )
        return
    if _fits(value, default):
        return
    wanted = "int" if default is None else type(default).__name__
    raise ConfigError(
        f"Option {key!r} of {family!r} must be {wanted}.",
        f"Got {value!r} ({type(value).__name__}).",
    )


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of the default; ``None`` stands for an integer or None."""
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, tuple):
        pair = isinstance(value, tuple | list) and len(value) == len(default)
        return pair and all(_fits(x, y) for x, y in zip(value, default, strict=True))
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value)
    if default is None:
        return value is None or isinstance(value, int)
    return isinstance(value, type(default))
