"""Sufficient statistics: counted by hand, free of order, posterior = evidence + trust * prior."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.statistics import (
    ODDS_LIMIT,
    Tally,
    combine,
    empty,
    observe,
    overall_means,
    predict_means,
    reward_scale,
)
from metaql.types import Transition

# state, action, reward, next_state, terminated, truncated: arrival 2 ends it once, the clock once.
STREAM = [
    (0, 1, 0.5, 1, False, False),
    (1, 0, -2.0, 2, True, False),
    (0, 1, 0.25, 2, False, True),
    (0, 0, 1.0, 0, False, False),
]


def transition(row):
    state, action, reward, next_state, terminated, truncated = row
    return Transition(
        jnp.int32(state),
        jnp.int32(action),
        jnp.float32(reward),
        jnp.int32(next_state),
        jnp.bool_(terminated),
        jnp.bool_(truncated),
    )


def gather(rows, shape=(3, 2), prior=None):
    statistics = empty(*shape)
    for row in rows:
        statistics = observe(statistics, transition(row), prior)
    return statistics


def random_stream(length=30, states=4, actions=3):
    rng = np.random.default_rng(0)
    return [
        (
            rng.integers(states),
            rng.integers(actions),
            rng.integers(-4, 5) / 4,  # sums of quarters are exact, whatever the order
            rng.integers(states),
            ends := rng.random() < 0.3,
            not ends and rng.random() < 0.3,
        )
        for _ in range(length)
    ]


def test_counts_by_hand():
    known = gather(STREAM)
    counts = np.zeros((3, 2, 3))
    counts[0, 1, 1] = counts[1, 0, 2] = counts[0, 1, 2] = counts[0, 0, 0] = 1
    np.testing.assert_array_equal(known.transitions, counts)
    assert float(known.steps) == 4
    assert float(known.reward_peak) == 2
    assert float(known.reward_square) == 0.25 + 4 + 0.0625 + 1


def test_tallies_by_pair_and_by_arrival_by_hand():
    known = gather(STREAM)
    np.testing.assert_array_equal(known.pair.visits, [[1, 2], [1, 0], [0, 0]])
    np.testing.assert_array_equal(known.pair.reward, [[1, 0.75], [-2, 0], [0, 0]])
    np.testing.assert_array_equal(known.pair.ends, [[0, 0], [1, 0], [0, 0]])
    np.testing.assert_array_equal(known.arrival.visits, [1, 1, 2])
    np.testing.assert_array_equal(known.arrival.reward, [1, 0.5, -1.75])
    np.testing.assert_array_equal(known.arrival.ends, [0, 0, 1])


def test_truncation_is_no_termination():
    known = gather([(0, 0, 0.0, 1, False, True)])
    assert float(known.pair.ends.sum()) == float(known.arrival.ends.sum()) == 0
    ended = gather([(0, 0, 0.0, 1, True, False)])
    assert float(ended.pair.ends[0, 0]) == float(ended.arrival.ends[1]) == 1


def test_scores_by_hand():
    """Every explanation is judged on the step before it has seen it."""
    rows = [(0, 0, 2.0, 1, False, False), (0, 1, 2.0, 1, True, False)]
    scores = gather(rows, shape=(2, 2)).scores
    overall = 2.0 / 1.001  # mean reward after the first row
    by_pair = overall  # pair (0, 1) was never tried: nothing but the overall mean
    by_arrival = (2.0 + 0.1 * overall) / 1.1
    misses = [(2 - by_pair) ** 2, (2 - by_arrival) ** 2]
    np.testing.assert_allclose(scores.error_pair, 4.0 + misses[0], rtol=1e-5)
    np.testing.assert_allclose(scores.error_arrival, 4.0 + misses[1], rtol=1e-5)
    # The variance known beforehand: the first error, 4, and a pretended one of the scale, 2 squared.
    variance = (4.0 + 4.0) / 2.0
    np.testing.assert_allclose(
        scores.reward_odds, (misses[0] - misses[1]) / (2.0 * variance), rtol=1e-4
    )
    # No end was foreseen by either: both gave it the lowest probability.
    np.testing.assert_allclose(scores.ends_odds, 0.0, atol=1e-6)


def test_bayes_factor_of_terminations_by_hand():
    rows = [(0, 0, 0.0, 1, True, False), (1, 0, 0.0, 0, False, False)]
    overall = 1.0 / 2.001
    # Pair (0, 1) was never tried; one of one arrivals at 1 was an end.
    by_pair, by_arrival = overall, (1.0 + 0.1 * overall) / 1.1
    for ended in (True, False):
        scores = gather([*rows, (0, 1, 0.0, 1, ended, False)], shape=(2, 2)).scores
        share = by_arrival / by_pair if ended else (1 - by_arrival) / (1 - by_pair)
        assert float(scores.ends_odds) == pytest.approx(np.log(share), rel=1e-4)


def test_a_judgement_is_bounded_and_can_turn():
    rows = [(s, a, float(z), z, bool(z), False) for s in range(5) for a in (0, 1) for z in (0, 1)]
    scores = gather(rows * 20, shape=(5, 2)).scores
    assert float(scores.reward_odds) == float(scores.ends_odds) == ODDS_LIMIT


def test_scores_tell_which_explanation_holds():
    """Ten arrivals over ever other pairs: arrival foresees the reward, the pair cannot."""
    rows = [(s, a, float(z), z, bool(z), False) for s in range(5) for a in (0, 1) for z in (0, 1)]
    by_arrival = gather(rows, shape=(5, 2)).scores
    assert float(by_arrival.error_arrival) < 0.5 * float(by_arrival.error_pair)
    assert float(by_arrival.reward_odds) > 3
    assert float(by_arrival.ends_odds) > 3
    rows = [(0, a, float(a), z, bool(a), False) for z in range(5) for a in (0, 1)]
    by_pair = gather(rows, shape=(5, 2)).scores
    assert float(by_pair.error_pair) < 0.5 * float(by_pair.error_arrival)
    assert float(by_pair.reward_odds) < -3
    assert float(by_pair.ends_odds) < -3


@pytest.mark.parametrize("seed", range(5))
def test_order_does_not_matter_to_what_is_counted(seed):
    rows = random_stream()
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    first, second = gather(rows, (4, 3)), gather(shuffled, (4, 3))
    # Scores are predictions made one step ahead: they do depend on the order.
    first, second = (x._replace(scores=empty(4, 3).scores) for x in (first, second))
    assert float(first.steps) == len(rows)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_prior_sharpens_predictions_and_enters_no_count():
    prior = gather([(0, 1, 0.5, 1, False, False)] * 50)
    plain, informed = gather(STREAM), gather(STREAM, prior=prior)
    assert float(informed.scores.error_pair) < float(plain.scores.error_pair)
    alike = (x._replace(scores=empty(3, 2).scores) for x in (plain, informed))
    jax.tree.map(np.testing.assert_array_equal, *alike)


@pytest.mark.parametrize("trust", [0.0, 0.25, 1.0])
def test_a_posterior_is_evidence_plus_trust_times_prior(trust):
    evidence = gather(STREAM)
    prior = gather([(2, 1, 8.0, 0, True, False), (1, 0, 1.0, 0, False, False)])
    known = combine(evidence, prior, jnp.float32(trust))
    for name in ("transitions", "pair", "arrival", "scores", "reward_square"):
        parts = (getattr(x, name) for x in (known, evidence, prior))
        jax.tree.map(
            lambda k, e, p: np.testing.assert_allclose(k, e + trust * p, rtol=1e-6), *parts
        )
    assert float(known.steps) == 4  # pretended steps are not lived
    assert float(known.reward_peak) == (8.0 if trust > 0.5 else 2.0)


def test_what_is_left_of_a_prior_that_is_not_believed_is_no_unit_of_reward():
    prior = gather([(2, 1, 8.0, 0, True, False)])
    known = combine(empty(3, 2), prior, jnp.float32(2e-9))
    assert float(reward_scale(known)) == 1.0


def test_means_are_shrunk_to_the_overall_mean_by_hand():
    known = empty(2, 1)._replace(
        arrival=Tally(jnp.array([3.0, 1.0]), jnp.array([6.0, 0.0]), jnp.array([0.0, 1.0]))
    )
    reward, ends = overall_means(known)
    np.testing.assert_allclose([reward, ends], [6 / 4.001, 1 / 4.001], rtol=1e-6)
    at_second = predict_means(known.arrival, jnp.array([0.0, 1.0]), known, 0.1)
    np.testing.assert_allclose(
        at_second, [0.1 * (6 / 4.001) / 1.1, (1 + 0.1 / 4.001) / 1.1], rtol=1e-6
    )
