"""Outcome profiles against posteriors worked out by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from metaql.embedding import profiles
from metaql.embedding.profiles import PROFILES, chances, commonness, no_profiles, refresh
from metaql.embedding.successors import Sparse

NINE_TENTHS = next(i for i, row in enumerate(PROFILES) if row[0] == 0.9 and row[1] > 0.09)


def pair_with(*counts):
    """One pair with these counts by slot."""
    padded = jnp.asarray([*counts, *[0.0] * (4 - len(counts))])
    held = Sparse(jnp.arange(4)[None, None], *2 * [padded[None, None]])
    visits = jnp.full((1, 1), float(sum(counts)))
    return refresh(no_profiles(1, 1), held, (0, 0), visits), (padded > 0).astype(float)


def only(index):
    return jnp.zeros(len(PROFILES)).at[index].set(1.0)


def test_profiles_are_distributions():
    np.testing.assert_allclose(PROFILES.sum(-1), 1.0)
    assert (PROFILES >= 0).all()
    assert len({tuple(row) for row in PROFILES}) == len(PROFILES)


def test_the_order_of_a_profile_is_inferred_from_the_counts():
    profiled, seen = pair_with(2, 1)
    found = chances(*(x[0, 0] for x in profiled), only(NINE_TENTHS), seen)
    first = 0.9**2 * 0.1
    second = 0.1**2 * 0.9
    main = first / (first + second)
    np.testing.assert_allclose(
        found.slots[:2], [main * 0.9 + (1 - main) * 0.1, main * 0.1 + (1 - main) * 0.9], rtol=1e-4
    )
    # Var(p) / (p (1 - p)) for two outcomes, p being 0.9 or 0.1.
    mean = main * 0.9 + (1 - main) * 0.1
    variance = main * 0.81 + (1 - main) * 0.01 - mean**2
    np.testing.assert_allclose(found.narrow, variance / (mean * (1 - mean)), rtol=1e-3)


def test_what_was_not_seen_yet_keeps_its_share():
    profiled, seen = pair_with(1)
    found = chances(*(x[0, 0] for x in profiled), only(NINE_TENTHS), seen)
    np.testing.assert_allclose(found.slots.sum(), 0.9 * 0.9 + 0.1 * 0.1, rtol=1e-4)
    sure = chances(*(x[0, 0] for x in profiled), only(0), seen)
    np.testing.assert_allclose([sure.slots.sum(), sure.narrow], [1.0, 0.0], atol=1e-3)


def test_common_profiles_are_found_over_all_pairs():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(12, [0.8, 0.1, 0.1], size=(6, 5))
    padded = jnp.pad(jnp.asarray(counts, float), ((0, 0), (0, 0), (0, 1)))
    held = Sparse(jnp.zeros((6, 5, 4), int), padded, padded)
    visits = held.counts.sum(-1)
    profiled = no_profiles(6, 5)
    for state in range(6):
        for action in range(5):
            profiled = refresh(profiled, held, (state, action), visits)
    common = jnp.full(len(PROFILES), 1 / len(PROFILES))
    for _ in range(30):
        common = commonness(profiled, jnp.full(len(PROFILES), 0.05), common, visits)
    best = PROFILES[int(jnp.argmax(common))]
    np.testing.assert_allclose(best, [0.8, 0.1, 0.1, 0.0])
    np.testing.assert_allclose(common.sum(), 1.0, rtol=1e-5)


def test_more_successors_than_a_profile_has_are_not_foreseen():
    held = Sparse(jnp.arange(5)[None, None], *2 * [jnp.ones((1, 1, 5))])
    profiled = refresh(no_profiles(1, 1), held, (0, 0), jnp.full((1, 1), 5.0))
    found = chances(*(x[0, 0] for x in profiled), only(len(PROFILES) - 4), jnp.ones(profiles.WIDTH))
    np.testing.assert_allclose(found.slots.sum(), 0.8, rtol=1e-4)
