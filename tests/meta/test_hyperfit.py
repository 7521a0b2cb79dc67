"""The fitted prior recovers how a family is made, where that is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from metaql.embedding.hyperprior import SPREADS, broad
from metaql.meta.experience import Judge, q_learning_experience
from metaql.meta.hyperfit import fit_hyperprior
from metaql.tasks.families import Bandit, RandomMDP


def experience(family, agents, steps):
    scribe = Judge(broad(), None)
    return q_learning_experience(
        family, jax.random.key(0), agents=agents, steps=steps, scribe=scribe, chunk=steps
    )


def test_random_mdps_are_recovered():
    """Dirichlet(1) over 5 states, means N(1, 1), noise of variance 1, rewards by pair, no ends."""
    fitted = fit_hyperprior([experience(RandomMDP(5, 3), 96, 400)])
    unit = float(fitted.unit)
    assert unit > 0
    np.testing.assert_allclose(fitted.pair.mean * unit, 1.0, atol=0.25)
    np.testing.assert_allclose(fitted.pair.noise * unit**2, 1.0, rtol=0.15)
    np.testing.assert_allclose(fitted.pair.between * unit**2, 1.0, rtol=0.4)
    assert SPREADS[int(jnp.argmax(fitted.log_spread[0]))] == 4.0
    assert float(fitted.reward_odds) < -2.5
    assert int(jnp.argmax(fitted.origins)) == 0
    assert float(fitted.pair_ends.rate) < 0.01


def test_coins_are_recovered_beside_measurements():
    """Uniform success probabilities: mean 1/2, variance 1/12 between arms and 1/6 within."""
    coins = experience(Bandit(8, horizon=100), 96, 256)
    measured = experience(Bandit(8, horizon=100, kind="normal"), 96, 256)
    fitted = fit_hyperprior([coins, measured])
    assert float(fitted.unit) == 0.0
    np.testing.assert_allclose(fitted.pair_two.mean, 0.5, atol=0.08)
    np.testing.assert_allclose(fitted.pair_two.noise, 1 / 6, rtol=0.15)
    np.testing.assert_allclose(fitted.pair_two.between, 1 / 12, rtol=0.4)
    assert abs(float(fitted.pair.mean)) < 0.1


def test_what_chance_alone_scatters_is_taken_out_of_one_family():
    """All coins have one prior, so means of eight of them differ by chance only: the weights are large."""
    coins = experience(Bandit(8, horizon=100), 96, 256)
    loose, sharp = (fit_hyperprior([coins], one_family=flag) for flag in (False, True))
    assert float(sharp.pair_two.mean_weight) > 3.0 * float(loose.pair_two.mean_weight)
    assert float(sharp.pair_two.between_weight) > 2.0 * float(loose.pair_two.between_weight)
    for field in ("mean", "between", "noise"):
        np.testing.assert_allclose(
            getattr(sharp.pair_two, field), getattr(loose.pair_two, field), rtol=1e-6
        )
    assert float(sharp.stays_two) == 1.0


class Shifted:
    """Normal arms with an offset, on a scale of their own."""

    def __init__(self, offset, scale):
        self.offset, self.scale = offset, scale

    def tasks(self, key, number, split):
        tasks = Bandit(8, horizon=100, kind="normal").tasks(key, number, split)
        reward, noise = tasks.reward + self.offset, tasks.reward_noise
        return tasks._replace(reward=self.scale * reward, reward_noise=self.scale * noise)


def test_an_offset_of_all_rewards_is_no_part_of_what_arms_pay():
    """In batches of two scales, so that no unit is shared."""
    plain, offset = (
        fit_hyperprior([experience(Shifted(shift, scale), 48, 256) for scale in (1.0, 30.0)])
        for shift in (0.0, 100.0)
    )
    assert float(plain.unit) == float(offset.unit) == 0.0
    assert abs(float(offset.pair.mean)) < 0.2
    np.testing.assert_allclose(offset.pair.between, plain.pair.between, rtol=0.5)


def test_who_was_paid_nothing_tells_nothing_of_the_unit():
    seen = experience(RandomMDP(4, 2), 16, 60)
    quiet = seen._replace(lowest=seen.lowest.at[:8].set(0.0), highest=seen.highest.at[:8].set(0.0))
    loud = jax.tree.map(lambda leaf: leaf[8:], seen)
    units = [float(fit_hyperprior([each]).unit) for each in (quiet, loud)]
    assert units[0] == units[1] > 1.5
