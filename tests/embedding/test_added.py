"""What pairs add to arrivals, and rewards of both together: against the same sums over a list of steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.evidence import no_evidence
from metaql.embedding.hyperprior import broad
from metaql.embedding.judging import observe
from metaql.embedding.rewards import reward_unit
from metaql.policy.model import posterior
from metaql.policy.outlook import flat, foresee, hopes
from metaql.types import TaskSpec, Transition

STATES, ACTIONS = 4, 2
SPEC = TaskSpec(*(jnp.ones(n, bool) for n in (STATES, ACTIONS)), jnp.asarray(100), jnp.asarray(3))
WORTH, PRICE, EACH = (
    np.random.default_rng(1).normal(size=shape)
    for shape in (STATES, (STATES, ACTIONS), (STATES, ACTIONS, STATES))
)


def walk(count, seed=0):
    """Pairs at random, each of which leads to one of two states."""
    rng = np.random.default_rng(seed)
    onto = np.argsort(np.random.default_rng(7).random((STATES, ACTIONS, STATES)), -1)[..., :2]
    for _ in range(count):
        s, a, which = (int(x) for x in rng.integers((STATES, ACTIONS, 2)))
        yield s, a, int(onto[s, a, which])


@eqx.filter_jit
def _gathered(steps, slots):
    def see(seen, row):
        return observe(seen, broad(), SPEC, Transition(*row)), None

    return jax.lax.scan(see, no_evidence(SPEC, slots), steps)[0]


def gather(steps, reward, slots=None):
    """Evidence of steps ``(s, a, z)`` that pay ``reward(s, a, z)``."""
    rows = np.asarray(list(steps))
    paid = jnp.asarray([reward(*row) for row in rows], jnp.float32)
    state, action, onto = (jnp.asarray(column, jnp.int32) for column in rows.T)
    no = jnp.zeros(len(rows), bool)
    return _gathered((state, action, paid, onto, no, no), slots)


def adding(seen):
    return seen.added.landing, seen.added, float(reward_unit(seen, broad()))


def by_both(s, a, z):
    return WORTH[z] + PRICE[s, a]


@pytest.mark.parametrize("slots", [None, 4])
def test_sums_of_both_are_those_of_the_steps(slots):
    steps, rng = list(walk(60)), np.random.default_rng(3)
    paid = []

    def reward(s, a, z):
        paid.append(float(np.float32(by_both(s, a, z) + 0.3 * rng.normal())))
        return paid[-1]

    seen = gather(steps, reward, slots)
    groups = {}
    for step, amount in zip(steps, paid, strict=True):
        groups.setdefault(step, []).append(amount)
    within = sum(np.var(group) * len(group) for group in groups.values())
    np.testing.assert_allclose(seen.both_rewards.within, within, rtol=1e-4)
    assert int(seen.both_rewards.repeats) == 60 - len(groups)

    landing, more, unit = adding(seen)
    left = {}
    for (s, a, z), amount in zip(steps, paid, strict=True):
        left.setdefault((s, a), []).append(amount - float(landing[z]))
    before = broad().pair
    weight, tried = float(before.noise_weight), len(left)
    total = weight * float(before.noise) * unit**2 + sum(np.var(x) * len(x) for x in left.values())
    noise = total / (weight + 60 - tried)
    np.testing.assert_allclose(more.noise, noise, rtol=1e-4)
    scatter = max(sum(np.mean(x) ** 2 - noise / len(x) for x in left.values()), 0.0)
    between = scatter / (float(before.between_weight) + tried)
    np.testing.assert_allclose(more.fresh_variance, between, rtol=1e-4)
    for pair, rows in left.items():
        shrunk = np.sum(rows) / (len(rows) + noise / between)
        np.testing.assert_allclose(more.mean[pair], shrunk, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(
            more.variance[pair], noise / (len(rows) + noise / between), rtol=1e-3
        )


def test_nothing_is_added_where_arrivals_are_all_there_is():
    _, more, _ = adding(gather(walk(200), lambda s, a, z: WORTH[z]))
    np.testing.assert_allclose(more.mean, 0.0, atol=1e-3)
    rng = np.random.default_rng(0)
    _, more, _ = adding(gather(walk(800), lambda s, a, z: WORTH[z] + 0.3 * rng.normal()))
    assert np.abs(more.mean).max() < 0.02
    np.testing.assert_allclose(more.noise, 0.09, rtol=0.15)


def test_nothing_is_refined_while_rewards_have_two_values():
    seen = gather(walk(200), lambda s, a, z: float(s == z))
    more = adding(seen)[1]
    assert not more.mean.any()
    assert float(more.fresh_variance) == 0.0
    assert float(seen.both_rewards.odds) == float(seen.both_rewards.added_odds) == 0.0


@pytest.mark.parametrize(
    "reward", [by_both, lambda s, a, z: EACH[s, a, z]], ids=["sum of both", "of its own"]
)
@pytest.mark.parametrize("odds", [30.0, -30.0])
def test_pairs_that_are_known_pay_what_they_paid_whatever_explains_it(reward, odds):
    seen = gather(walk(2_000), reward)
    prior = eqx.tree_at(lambda p: p.reward_odds, broad(), jnp.asarray(odds))
    model = posterior(seen, prior, SPEC, jnp.zeros(()))
    hoped = hopes(model, flat(model))
    expected = (
        model.reward.mean + foresee(model, hoped.landed[None], hoped.fresh_landed[None])[0][0]
    )
    np.testing.assert_allclose(expected, seen.pair.reward / seen.pair.visits, atol=0.03)


@pytest.mark.parametrize("scale", [1.0, 1000.0, -1.0])
def test_the_sum_of_two_effects_is_told_apart_and_stays_with_arrivals(scale):
    """Also where everything was met many times, and a mean for each of both together is as good."""
    seen = gather(walk(1_500), lambda s, a, z: scale * (WORTH[z] + 0.3 * PRICE[s, a]))
    assert float(seen.reward_odds) > 5
    assert float(seen.both_rewards.added_odds) > 5
    landing, more, unit = adding(seen)
    counts = np.asarray(seen.successors.counts)
    told = np.asarray(landing) + np.asarray(more.mean)[..., None]
    truth = scale * (WORTH + 0.3 * PRICE[..., None])
    np.testing.assert_allclose(told[counts > 0], truth[counts > 0], atol=0.02 * unit)
    assert float(more.noise) < (0.05 * unit) ** 2


def test_hopes_for_what_is_added_grow_by_what_lies_above_only():
    for extreme, less in ((-9.0, True), (9.0, False)):
        # All pairs but one pay by arrival, and another was never tried.
        steps = [step for step in walk(800) if step[:2] != (3, 1)]
        seen = gather(steps, lambda s, a, z, more=extreme: WORTH[z] + more * ((s, a) == (1, 0)))
        prior = eqx.tree_at(lambda p: p.reward_odds, broad(), jnp.asarray(30.0))
        plain, careful = (
            posterior(seen, prior, SPEC, jnp.zeros(()), share).reward for share in (0.0, 1.0)
        )
        assert plain.variance[3, 1] == pytest.approx(float(seen.added.fresh_variance), rel=1e-3)
        for name in ("variance", "fresh_variance"):
            before, after = (np.asarray(getattr(part, name)) for part in (plain, careful))
            before, after = (part[3, 1] if part.ndim else part for part in (before, after))
            assert (after < 0.5 * before) == less
        tried = np.asarray(seen.pair.visits) > 0
        np.testing.assert_array_equal(plain.variance[tried], careful.variance[tried])


def test_who_stays_in_a_loop_does_not_take_its_rewards_for_those_of_arrivals():
    rng, steps, state = np.random.default_rng(0), [], 0
    for _ in range(300):
        onto = int(rng.random() < 0.4)
        steps.append((state, int(rng.random() < 0.05), onto))
        state = onto
    worth = np.asarray([[[1.0, 0.3], [0.0, 0.1]], [[0.9, 0.4], [0.2, -0.3]]])
    seen = gather(steps, lambda s, a, z: worth[s, a, z])
    assert float(seen.both_rewards.odds) > 5
    assert float(seen.reward_odds) < -5
    seen = gather(steps, lambda s, a, z: [0.9, -0.2, 0.0][z] + [0.0, 0.05][a])
    assert float(seen.both_rewards.added_odds) > 5
    assert float(seen.reward_odds) > 0
