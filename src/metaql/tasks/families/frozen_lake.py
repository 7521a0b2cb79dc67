"""Frozen lakes: random maps as Gymnasium makes them, each map in one split only.

What differs between maps is which cells are holes. All 4x4 maps are enumerated (3,828 are valid);
larger ones are drawn. Gymnasium's default map and its transpose belong to no split: they are the
task to report on. Dynamics: Gymnasium's ``FrozenLake-v1``, entry for entry (a test holds it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from metaql.config import check_seed
from metaql.errors import ConfigError, InvalidTaskError
from metaql.tasks.families.base import SPLITS, Family
from metaql.tasks.families.grid import neighbours
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

DEFAULT_MAPS = {
    4: ("SFFF", "FHFH", "FFFH", "HFFG"),
    8: (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
}
"""Gymnasium's own maps, held out of every split."""
_TEST_SHARE, _VALIDATION_SHARE = 0.15, 0.10
_ENUMERATE_UP_TO = 4
_LARGE_POOL = 20_000
_LARGEST = 32
"""Cells per side: transitions of a larger lake would not fit into the memory."""


class FrozenLake(Family):
    """Maps of one size, drawn as ``gymnasium...generate_random_map(size, p)`` draws them."""

    name: ClassVar[str] = "frozen_lake"
    summary: ClassVar[str] = "slippery lakes of one size; which cells are holes is what differs"
    shares_states: ClassVar[bool] = True
    baselines: ClassVar[Mapping[str, float]] = {
        "random": 0.104,
        "non_adaptive": 0.230,
        "optimum": 0.901,
    }

    size: int = eqx.field(static=True)
    success_rate: float = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    pools: dict[str, Bool[Array, "M cells"]]
    """Hole maps of each split, every map in one split only."""
    log_weights: dict[str, Float[Array, " M"]]
    """Log-probability (up to a constant) with which Gymnasium draws each map."""

    def __init__(
        self,
        size: int = 4,
        *,
        frozen: float = 0.8,
        success_rate: float = 1.0 / 3.0,
        horizon: int | None = None,
        seed: int = 0,
    ) -> None:
        """Build the pools of maps.

        Args:
            size: cells per side, 2 to 32: a task takes ``48 size ** 4`` bytes.
            frozen: probability that a cell is not a hole, in (0, 1).
            success_rate: probability of moving as asked; the rest slips to either side; 1: no slip.
            horizon: steps per episode; default as in Gymnasium: 100 up to 4x4, else 200.
            seed: of the pools and of the splits (they are part of the family's definition).

        Raises:
            ConfigError: an argument out of range.
            UsageError: a seed out of range.
        """
        if not 2 <= size <= _LARGEST or not 0 < frozen < 1 or not 0 < success_rate <= 1:
            raise ConfigError(
                f"`frozen_lake` needs size >= 2 and <= {_LARGEST}, frozen in (0, 1), success_rate in (0, 1].",
                f"Got size={size}, frozen={frozen}, success_rate={success_rate}.",
            )
        check_seed(seed)
        if horizon is not None and horizon < 1:
            raise ConfigError("`horizon` must be at least 1 step.", f"Got {horizon}.")
        self.size, self.success_rate = size, success_rate
        self.horizon = (100 if size <= 4 else 200) if horizon is None else horizon
        holes = _valid_maps(size, frozen, np.random.default_rng(seed))
        if len(holes) < len(SPLITS):
            raise ConfigError(
                "`frozen_lake` needs maps with a way to the goal for every split.",
                f"Found {len(holes)} of size {size} with frozen={frozen}.",
                "Choose a larger `frozen`.",
            )
        parts = _partition(len(holes), np.random.default_rng(seed + 1))
        enumerated = size <= _ENUMERATE_UP_TO
        log_odds = np.log(1 - frozen) - np.log(frozen) if enumerated else 0.0
        self.pools = {name: jnp.asarray(holes[index]) for name, index in parts.items()}
        self.log_weights = {
            name: jnp.asarray(holes[index].sum(-1) * log_odds, jnp.float32)
            for name, index in parts.items()
        }

    @property
    def environment(self) -> str:
        """Gymnasium's own, where it has as many cells."""
        return {4: "FrozenLake-v1", 8: "FrozenLake8x8-v1"}.get(self.size, "")

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one map of the split, with Gymnasium's probabilities."""
        index = jax.random.categorical(key, self.log_weights[split])
        return self.from_holes(self.pools[split][index])

    def from_holes(self, holes: Bool[Array, " cells"]) -> FiniteTask:
        """The task of one map, given which cells are holes (row by row)."""
        return lake_task(holes, self.size, self.success_rate, self.horizon)

    def distinct(self, split: str) -> FiniteTask:
        """Every map of a split once, stacked ``[M, ...]``."""
        return jax.vmap(self.from_holes)(self.pools[split])

    def default(self) -> FiniteTask:
        """Gymnasium's own map of this size (held out of every split).

        Raises:
            InvalidTaskError: Gymnasium has no map of this size.
        """
        if self.size not in DEFAULT_MAPS:
            raise InvalidTaskError(
                f"Gymnasium has default maps of sizes {sorted(DEFAULT_MAPS)}.",
                f"This family has size {self.size}.",
            )
        return self.from_holes(jnp.asarray(_holes(DEFAULT_MAPS[self.size])))

    @classmethod
    def toy(cls) -> FrozenLake:
        """3x3 lakes of 20 steps."""
        return cls(size=3, horizon=20)


def lake_task(
    holes: Bool[Array, " cells"], size: int, success_rate: float, horizon: int
) -> FiniteTask:
    """FrozenLake's dynamics (Gymnasium's ``FrozenLakeEnv``) for one map."""
    cells = size * size
    terminal = jnp.asarray(holes).at[cells - 1].set(True)
    side = (1.0 - success_rate) / 2.0
    turns = jnp.eye(4) * success_rate
    turns = turns + side * (jnp.roll(jnp.eye(4), 1, axis=1) + jnp.roll(jnp.eye(4), -1, axis=1))
    moves = jax.nn.one_hot(neighbours(size, size), cells)  # [S, 4, S]
    slips = jnp.einsum("ab,sbz->saz", turns, moves)
    stays = jnp.broadcast_to(jnp.eye(cells)[:, None, :], slips.shape)
    goal = jnp.zeros(cells).at[cells - 1].set(1.0)
    leaves = ~terminal[:, None, None]
    return FiniteTask(
        transition=jnp.where(leaves, slips, stays),
        reward=jnp.where(leaves, goal, 0.0) * jnp.ones_like(slips),
        termination=jnp.broadcast_to(terminal.astype(jnp.float32), slips.shape),
        initial=jnp.zeros(cells).at[0].set(1.0),
        horizon=jnp.asarray(horizon, jnp.int32),
        reward_noise=jnp.zeros(()),
        reward_binary=jnp.asarray(False),
        state_mask=jnp.ones(cells, bool),
        action_mask=jnp.ones(4, bool),
    )


def _holes(rows: tuple[str, ...]) -> np.ndarray:
    return np.array([[cell == "H" for cell in row] for row in rows]).ravel()


def _valid_maps(size: int, frozen: float, rng: np.random.Generator) -> np.ndarray:
    """Distinct hole maps ``[M, cells]`` with a way from start to goal, default maps removed."""
    inner = size * size - 2
    if size <= _ENUMERATE_UP_TO:
        codes = np.arange(2**inner)
        free = (codes[:, None] >> np.arange(inner)) & 1 == 1
    else:
        free = np.unique(rng.random((_LARGE_POOL, inner)) >= frozen, axis=0)
    edge = np.zeros((len(free), 1), bool)
    holes = np.concatenate([edge, free, edge], axis=1)
    holes = holes[_connected(~holes.reshape(-1, size, size))]
    if size in DEFAULT_MAPS:
        default = _holes(DEFAULT_MAPS[size])
        transposed = default.reshape(size, size).T.ravel()
        held_out = (holes == default).all(-1) | (holes == transposed).all(-1)
        holes = holes[~held_out]
    return holes


def _connected(open_cells: np.ndarray) -> np.ndarray:
    """Whether the last cell can be reached from the first, for maps ``[M, n, n]``."""
    reached = np.zeros_like(open_cells)
    reached[:, 0, 0] = True
    for _ in range(open_cells.shape[1] * open_cells.shape[2]):
        grown = reached.copy()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= open_cells
        if (grown == reached).all():
            break
        reached = grown
    return reached[:, -1, -1]


def _partition(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random disjoint parts of ``range(count)``, one per split, none empty."""
    order = rng.permutation(count)
    num_test = max(1, round(count * _TEST_SHARE))
    num_validation = max(1, round(count * _VALIDATION_SHARE))
    cuts = (order[num_test + num_validation :], order[num_test:][:num_validation], order[:num_test])
    return {name: np.sort(part) for name, part in zip(SPLITS, cuts, strict=True)}
