"""The family prior against known structure and against a likelihood computed by scipy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import betabinom, dirichlet_multinomial

from metaql.embedding.prior import STRENGTHS, fit_categorical, fit_prior
from metaql.embedding.statistics import Scores, Statistics, Tally


def statistics(transitions, reward, ends):
    """Statistics of N tasks from counts ``[N, S, A, S]``; rewards, ends: sums of the same shape."""
    by_pair = [x.sum(-1) for x in (transitions, reward, ends)]
    by_arrival = [x.sum((1, 2)) for x in (transitions, reward, ends)]
    zero = np.zeros(len(transitions))
    return Statistics(
        transitions=transitions,
        pair=Tally(*by_pair),
        arrival=Tally(*by_arrival),
        scores=Scores(zero, zero, zero, zero),
        reward_square=(np.square(reward) / np.maximum(transitions, 1)).sum((1, 2, 3)),
        reward_peak=np.abs(reward / np.maximum(transitions, 1)).max((1, 2, 3)),
        steps=transitions.sum((1, 2, 3)),
    )


def test_where_all_tasks_agree_the_prior_is_strong_and_right():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(3), (3, 2))
    counts = np.stack([[[rng.multinomial(40, p) for p in row] for row in truth] for _ in range(60)])
    prior = fit_prior(statistics(counts.astype(float), 2.0 * counts, 0.0 * counts))
    total = np.asarray(prior.transitions.sum(-1))
    assert total.min() >= 100
    np.testing.assert_allclose(prior.transitions / total[..., None], truth, atol=0.04)
    np.testing.assert_allclose(prior.pair.visits, STRENGTHS[-1], rtol=1e-6)
    np.testing.assert_allclose(prior.pair.reward / prior.pair.visits, 2.0, rtol=1e-5)
    np.testing.assert_allclose(prior.pair.ends, 0.0, atol=1e-6)


def test_a_cell_that_is_a_hole_in_some_tasks_is_settled_by_one_look():
    """A hole is seen once and ends the life; where there is ice, agents pass a hundred times."""
    holes = np.arange(40) < 12
    counts = np.zeros((40, 2, 1, 2))
    counts[:, 0, 0, 1] = np.where(holes, 1.0, 100.0)
    prior = fit_prior(statistics(counts, 0 * counts, counts * holes[:, None, None, None]))
    strength = float(prior.arrival.visits[1])
    assert strength <= 0.05
    # The average over tasks, 0.3; weighed by visits it would be 12 / 2812.
    assert float(prior.arrival.ends[1]) / strength == pytest.approx(0.3, abs=0.03)


def test_rewards_that_differ_between_tasks_are_held_loosely():
    rng = np.random.default_rng(0)
    counts = np.full((50, 1, 2, 1), 20.0)
    noise = rng.normal(0, 0.5, (50, 2, 20))
    level = np.stack([np.full(50, 3.0), rng.normal(3, 2.0, 50)], -1)  # shared; the task's own
    lived = level[..., None] + noise
    seen = statistics(counts, lived.sum(-1)[:, None, :, None], 0 * counts)
    seen = seen._replace(reward_square=np.square(lived).sum((1, 2)))
    prior = fit_prior(seen).pair
    mean = np.asarray(prior.reward / prior.visits)[0]
    np.testing.assert_allclose(mean, [3.0, level[:, 1].mean()], atol=0.1)
    # Noise variance 0.25 over variance between tasks 4: a sixteenth of an observation.
    assert float(prior.visits[0, 0]) > 50
    assert float(prior.visits[0, 1]) == pytest.approx(0.25 / level[:, 1].var(), rel=0.2)


def test_nothing_experienced_is_no_prior():
    prior = fit_prior(statistics(*[np.zeros((5, 2, 2, 2))] * 3))
    assert not any(np.any(x) for x in jax.tree.leaves(prior))  # NaN would count as something


def test_pairs_nobody_tried_get_no_pseudo_counts():
    counts = np.zeros((5, 2, 2, 2))
    counts[:, 0, 0, 1] = 7.0
    prior = fit_prior(statistics(counts, 0 * counts, 0 * counts))
    tried = np.zeros((2, 2), bool)
    tried[0, 0] = True
    np.testing.assert_array_equal(np.asarray(prior.transitions.sum(-1) > 0), tried)
    np.testing.assert_array_equal(np.asarray(prior.pair.visits > 0), tried)
    np.testing.assert_array_equal(np.asarray(prior.arrival.visits > 0), [False, True])


def likelihood(counts, alpha):
    """Log marginal likelihood of every task's counts; outcomes of probability zero are left out."""
    keep = alpha > 0
    return sum(
        dirichlet_multinomial.logpmf(row[keep].astype(int), alpha[keep], int(row.sum()))
        for row in counts
    )


@pytest.mark.parametrize("true_strength", [0.1, 2.0, 50.0])
def test_the_strength_maximises_the_likelihood(true_strength):
    rng = np.random.default_rng(3)
    mean = np.array([0.5, 0.3, 0.2])
    rates = rng.dirichlet(true_strength * mean, 80)
    counts = np.stack([rng.multinomial(n, p) for n, p in zip([2, 9] * 40, rates, strict=True)])
    alpha = fit_categorical(counts.astype(float))
    strength = alpha.sum()
    # The best of the grid, given the mean that was found (their ties go to the largest).
    scores = [likelihood(counts, s * alpha / strength) + 1e-3 * np.log(s) for s in STRENGTHS]
    assert strength == pytest.approx(STRENGTHS[int(np.argmax(scores))])
    assert strength == pytest.approx(true_strength, rel=2.0)
    np.testing.assert_allclose(alpha / strength, mean, atol=0.1)


def test_two_outcomes_agree_with_the_beta_binomial():
    counts = np.array([[0, 3], [3, 0], [1, 2], [2, 1], [0, 3], [3, 0]], float)
    alpha = fit_categorical(counts)
    share = alpha / alpha.sum()
    scores = [
        betabinom.logpmf(counts[:, 0], 3, s * share[0], s * share[1]).sum() for s in STRENGTHS
    ]
    assert alpha.sum() == pytest.approx(STRENGTHS[int(np.argmax(scores))])
    np.testing.assert_allclose(share, 0.5, atol=1e-9)


def test_large_counts_do_not_drown_the_likelihood():
    """A million visits of a fair coin in every task: strong, and still told from a loaded one."""
    fair = np.tile([5e5, 5e5], (20, 1))
    assert fit_categorical(fair).sum() == pytest.approx(STRENGTHS[-1])
    loaded = np.concatenate([np.tile([1e6, 0.0], (10, 1)), np.tile([0.0, 1e6], (10, 1))])
    assert fit_categorical(loaded).sum() <= 0.1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_how_loosely_rewards_are_held_does_not_depend_on_their_unit(scale):
    """A goal in one of five states, another one in every task."""
    counts = np.full((40, 5, 1, 5), 4.0)
    reward = np.zeros_like(counts)
    reward[np.arange(40), :, :, np.arange(40) % 5] = 4.0
    found = [
        fit_prior(statistics(counts, unit * reward, 0 * counts)).arrival.visits
        for unit in (1.0, scale)
    ]
    assert float(found[0].max()) < 1.0
    np.testing.assert_allclose(*found, rtol=1e-4)
