"""Evidence against conjugate posteriors in closed form."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

from metaql.embedding import evidence
from metaql.embedding.evidence import end_rates, no_evidence, outcomes, spread_weights
from metaql.embedding.hyperprior import SPREADS, EndPrior, broad, reward_prior
from metaql.embedding.judging import observe
from metaql.embedding.rewards import Scale, noises, pair_means
from metaql.types import TaskSpec, Transition

SURE = 1e6
UNIT = Scale(jnp.zeros(()), jnp.ones(()))


def spec(states=4, actions=2):
    many = jnp.asarray(10_000)
    return TaskSpec(jnp.ones(states, bool), jnp.ones(actions, bool), many, jnp.asarray(3))


def step(state, action, reward, onto, terminated=False):
    made = (jnp.asarray(state), jnp.asarray(action), jnp.asarray(float(reward)), jnp.asarray(onto))
    return Transition(*made, jnp.asarray(terminated), jnp.zeros((), bool))


def gather(steps, prior, slots=None, about=None):
    about = about or spec()
    see = eqx.filter_jit(observe)
    seen = no_evidence(about, slots)
    for each in steps:
        seen = see(seen, prior, about, each)
    return seen


def uniform_origins():
    return eqx.tree_at(lambda p: p.origins, broad(), jnp.asarray([SURE, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("slots", [None, 4])
def test_likelihood_of_successors_is_the_dirichlet_multinomial(slots):
    prior, (states, actions) = uniform_origins(), (4, 2)
    rng = np.random.default_rng(0)
    steps = [tuple(rng.integers((states, actions, states))) for _ in range(30)]
    seen = gather([step(s, a, 0.0, z) for s, a, z in steps], prior, slots)
    counts = np.zeros((states, actions, states))
    np.add.at(counts, tuple(np.transpose(steps)), 1.0)
    for index, spread in enumerate(SPREADS):
        alpha = spread / states
        rows = gammaln(spread) - gammaln(spread + counts.sum(-1))
        ways = (gammaln(alpha + counts) - gammaln(alpha)).sum(-1)
        np.testing.assert_allclose(seen.log_spread[0, index], (rows + ways).sum(), rtol=1e-3)
    bases = seen.log_spread if slots else seen.log_spread[:1]
    total = jax.nn.softmax(bases, axis=(0, 1)).sum(0)
    np.testing.assert_allclose(spread_weights(seen, prior), total, rtol=1e-4, atol=1e-9)


def test_predicted_successors_are_those_of_the_posterior():
    prior = eqx.tree_at(
        lambda p: p.log_spread,
        uniform_origins(),
        jnp.full((2, len(SPREADS)), -50.0).at[0, SPREADS.index(4.0)].set(0.0),
    )
    seen = gather([step(0, 0, 0.0, 1), step(0, 0, 0.0, 1), step(0, 0, 0.0, 2)], prior)
    found = outcomes(seen, prior)
    np.testing.assert_allclose(found.weights[0, 0], [0, 2 / 7, 1 / 7, 0], atol=1e-4)
    np.testing.assert_allclose(found.kept[0, 0], 3 / 7, rtol=1e-4)
    np.testing.assert_allclose(found.narrow[0, 0], 1 / 8, rtol=1e-4)
    np.testing.assert_allclose([found.narrow[1, 0], found.fresh_narrow], 1 / 5, rtol=1e-4)


def test_mean_rewards_are_the_normal_normal_posterior():
    known = reward_prior(
        mean=1.0, mean_weight=SURE, between=4.0, between_weight=SURE, noise=2.0, noise_weight=SURE
    )
    prior = eqx.tree_at(
        lambda p: (p.pair, p.pair_two, p.unit, p.noise_odds),
        broad(),
        (known, known, jnp.ones(()), -jnp.asarray(SURE)),
    )
    rewards = [3.0, 5.0, 0.5]
    seen = gather([step(0, 0, r, 1) for r in rewards], prior)
    means = pair_means(seen, prior, UNIT)
    strength = 2.0 / 4.0
    np.testing.assert_allclose(
        means.mean[0, 0], (sum(rewards) + strength) / (3 + strength), rtol=1e-4
    )
    np.testing.assert_allclose(means.variance[0, 0], 2.0 / (3 + strength), rtol=1e-3)
    np.testing.assert_allclose([means.mean[1, 1], means.variance[1, 1]], [1.0, 4.0], rtol=1e-3)


def test_two_valued_rewards_are_the_beta_posterior():
    uniform = reward_prior(0.5, SURE, 1 / 12, SURE, 1 / 6, SURE)
    prior = eqx.tree_at(lambda p: (p.pair_two, p.unit), broad(), (uniform, jnp.ones(())))
    seen = gather([step(0, 0, r, 0) for r in (1, 1, 0, 1)], prior)
    means = pair_means(seen, prior, UNIT)
    a, b = 4.0, 2.0
    np.testing.assert_allclose(means.mean[0, 0], a / (a + b), rtol=1e-4)
    np.testing.assert_allclose(
        means.variance[0, 0], a * b / ((a + b) ** 2 * (a + b + 1)), rtol=1e-3
    )


def test_a_third_value_is_no_coin():
    prior = broad()
    assert gather([step(0, 0, r, 0) for r in (0, 2, 0, 2)], prior).binary
    assert not gather([step(0, 0, r, 0) for r in (0, 2, 1)], prior).binary
    assert not gather([step(0, 0, r, 0) for r in (0, 2, 3)], prior).binary


def test_noise_is_the_variance_within_pairs():
    rng = np.random.default_rng(0)
    steps = [
        step(s, a, 10.0 * s + rng.normal(0, 0.5), 0)
        for s in range(4)
        for a in range(2)
        for _ in range(25)
    ]
    seen = gather(steps, broad())
    np.testing.assert_allclose(seen.pair_rewards.within.mean() / 24, 0.25, rtol=0.15)
    found = noises(seen.pair, seen.pair_rewards, broad().pair, jnp.asarray(1.0))
    np.testing.assert_allclose(found.shared, 0.25, rtol=0.15)
    assert seen.pair_rewards.odds < 1.0


def test_a_sure_thing_does_not_make_all_else_sure():
    rng = np.random.default_rng(0)
    sure = [step(0, 0, 0.5, 0)] * 30
    unsure = [step(0, 1, rng.normal(0.0, 1.0), 0) for _ in range(5)]
    prior = broad()
    seen = gather([*unsure[:3], *sure, *unsure[3:]], prior)
    means = pair_means(seen, prior, UNIT)
    assert seen.pair_rewards.odds > 3.0
    assert means.noise[0, 0] < 0.1
    shared = noises(seen.pair, seen.pair_rewards, prior.pair, jnp.asarray(1.0)).shared
    assert means.noise[0, 1] > 1.5 * shared  # what one noise for all would have said


def test_two_values_are_told_when_both_were_met_twice():
    prior = broad()
    for rewards, told in (((0, 1, 1), False), ((0, 1, 1, 0), True), ((0.5, 0.5, 0.5), False)):
        seen = gather([step(0, 0, r, 0) for r in rewards], prior)
        assert bool(seen.told_two) == told
    assert gather([step(0, 0, r, 0) for r in (0, 1, 1, 0, 2)], prior).told_two


@pytest.mark.parametrize(
    ("pulls", "told"),
    [
        ([(0, 0), (1, 0), (2, 1)], True),
        ([(0, 1), (1, 1), (2, 0)], True),
        ([(0, 0.5), (0, 0.5), (1, 0.7)], False),  # a sure arm, and one of which nothing is known
        ([(0, 0), (1, 0), (2, 0)], False),
        ([(0, 0), (0, 1), (0, 1)], False),
    ],
)
def test_of_a_bandit_a_value_of_two_arms_tells_two_values(pulls, told):
    padded = spec(2, 3)._replace(state_mask=jnp.asarray([True, False]))
    for about in (spec(1, 3), padded):
        seen = gather([step(0, a, r, 0) for a, r in pulls], broad(), about=about)
        assert bool(seen.told_two) == told
    elsewhere = gather([step(0, a, r, 0) for a, r in pulls], broad(), about=spec(2, 3))
    assert not elsewhere.told_two


def test_rates_of_ends_are_beta_binomial():
    prior = EndPrior(jnp.asarray(0.25), jnp.asarray(SURE), jnp.asarray([-50.0, -50.0, 0.0]))
    seen = gather([step(0, 0, 0, 1, True), step(0, 0, 0, 1), step(0, 0, 0, 1)], broad())
    rates = end_rates(seen.arrival, prior, jnp.zeros(3))
    np.testing.assert_allclose(rates.mean[1], (1 + 0.5) / (3 + 2), rtol=1e-3)
    mean = 0.3
    np.testing.assert_allclose(rates.variance[1], mean * (1 - mean) / 6, rtol=1e-3)
    np.testing.assert_allclose(rates.mean[2], 0.25, rtol=1e-3)


def test_what_explains_rewards_and_ends_is_told_apart():
    rng = np.random.default_rng(0)
    by_arrival, by_pair = [], []
    worth, deed = rng.normal(size=4), rng.normal(size=(4, 2))
    for _ in range(60):
        s, a, z = (int(x) for x in rng.integers((4, 2, 4)))
        by_arrival.append(step(s, a, worth[z], z, bool(z == 3)))
        by_pair.append(step(s, a, deed[s, a], z, (s, a) == (1, 1)))
    arrival, pair = gather(by_arrival, broad()), gather(by_pair, broad())
    assert min(float(arrival.reward_odds), float(arrival.ends_odds)) > 5
    assert max(float(pair.reward_odds), float(pair.ends_odds)) < -5


def test_truncation_is_no_end():
    cut = step(0, 0, 0, 1)._replace(truncated=jnp.ones((), bool))
    seen = gather([cut, cut], broad())
    assert seen.pair.ends.sum() == 0
    assert gather([step(0, 0, 0, 1, True)], broad()).pair.ends.sum() == 1


def test_fresh_successors_come_from_where_they_came():
    assert evidence.origin_weights(no_evidence(spec(), None), broad(), spec()).shape == (4,)
    around = gather([step(s, a, 0, s) for s in range(4) for a in range(2)], broad())
    shares = evidence.origin_weights(around, broad(), spec())
    assert int(jnp.argmax(shares)) == 2  # itself
    assert shares[3] == 0  # every state was met
