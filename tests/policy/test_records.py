"""What a pair may still hold that has not shown all of its outcomes, and how dense rewards are."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.evidence import outcomes
from metaql.embedding.rewards import pair_means, reward_scale
from metaql.policy.curiosity import FEATURES, Curiosity
from metaql.policy.finiteq import FiniteQ, untrained
from metaql.types import TaskSpec, Transition

LEARN, MODEL = eqx.filter_jit(FiniteQ.learn), eqx.filter_jit(FiniteQ.model)
OUTLOOK = eqx.filter_jit(FiniteQ.outlook)
LEARNER = untrained()
LAST = 4


def lived(*steps, states=LAST + 1, actions=2):
    """Memory after these ``(state, action, reward, next_state)``; a fifth entry ends the episode."""
    masks = jnp.ones(states, bool), jnp.ones(actions, bool)
    about = TaskSpec(*masks, jnp.asarray(40), jnp.asarray(20))
    memory = LEARNER.init(jax.random.key(0), about)
    for state, action, reward, onto, *ended in steps:
        moved = Transition(
            jnp.asarray(state),
            jnp.asarray(action),
            jnp.asarray(float(reward)),
            jnp.asarray(onto),
            jnp.asarray(bool(ended)),
            jnp.zeros((), bool),
        )
        memory = LEARN(LEARNER, memory, moved)
    return memory


DRIFT = (0, 1, 0.1, 0)
RIVER = [DRIFT, *((s, 0, 0.0, s + 1) for s in range(LAST)), (2, 0, 0.0, 2), (1, 0, 0.0, 0)]
"""Swimming (action 0) does not always get on; the near end (action 1 in state 0) pays a little."""


def more(memory):
    """Variance of the reward of every pair beyond what pairs' rewards leave open, in that of a record."""
    memory = memory._replace(evidence=memory.evidence._replace(reward_odds=jnp.asarray(-30.0)))
    seen = memory.evidence
    usual = pair_means(seen, LEARNER.prior, reward_scale(seen, LEARNER.prior)).variance
    record = seen.peak**2 / (1.0 if seen.alone else float(seen.met.sum()) + 1.0)
    return np.asarray((MODEL(LEARNER, memory).reward.variance - usual) / record), seen


def test_a_stroke_that_was_thrown_back_leaves_hope_for_one_that_holds():
    left, seen = more(lived(*RIVER, (LAST, 0, 0.0, LAST - 1)))
    kept = np.asarray(outcomes(seen, LEARNER.prior).kept)
    tried = np.asarray(seen.pair.visits) > 0
    assert tried.sum() == 6
    mean = pair_means(seen, LEARNER.prior, reward_scale(seen, LEARNER.prior)).mean[LAST, 0]
    plain = (1.0 - abs(float(mean)) / 0.1) ** 2  # nearly 1: of one stroke the mean is not sure
    wanted = 0.25 * plain * 6 / 7 * (1.0 - kept[LAST, 0])
    np.testing.assert_allclose(left[LAST, 0], wanted, rtol=1e-3)
    assert left[LAST, 0] > 0.05
    np.testing.assert_allclose(left[~tried], 0.0, atol=1e-4)
    # The more often nothing new came of it, the less is left; and of what always pays there is nothing.
    often, _ = more(lived(*RIVER, *[(LAST, 0, 0.0, LAST - 1)] * 6))
    assert 0.0 < often[LAST, 0] < 0.5 * left[LAST, 0]
    assert abs(left[0, 1]) < 0.02


@pytest.mark.parametrize("paid", [0.1, -0.1])
def test_a_pair_that_paid_as_much_as_any_shows_what_it_pays(paid):
    left, _ = more(lived(*RIVER, (LAST, 0, paid, LAST - 1)))
    assert abs(left[LAST, 0]) < 0.02


def test_nothing_is_left_where_episodes_end_or_of_a_bandit():
    left, _ = more(lived(*RIVER, (LAST, 0, 0.0, LAST - 1), (3, 1, 0.0, 2, True)))
    np.testing.assert_allclose(left, 0.0, atol=1e-3)
    steps = [(0, arm, reward, 0) for arm, reward in enumerate((0.5, 2.0, 0.0))]
    left, _ = more(lived(*steps, states=1, actions=3))
    np.testing.assert_allclose(left, 0.0, atol=1e-3)


def test_density_is_what_pairs_pay_of_the_most_that_one_did():
    steps = [(0, 0, 2.0, 1), (0, 0, 1.0, 1), (1, 0, -3.0, 0), (1, 1, 0.0, 0)]
    seen = lived(*steps, states=2).evidence
    assert float(seen.density) == pytest.approx((1.5 + 3.0) / 3.0 / (3 + 10), rel=1e-5)
    # In rewards that are all close to each other it does not show.
    close = lived(*((s, a, 2.9 + 0.1 * r, n) for s, a, r, n in steps[:3]), states=2).evidence
    assert float(close.density) == pytest.approx(
        (0.5 / 3.1) * (3.05 + 2.6) / 3.1 / (2 + 10), rel=1e-4
    )


def test_nothing_and_ever_the_same_are_not_dense():
    assert float(lived().evidence.density) == 0.0
    assert float(lived(*[(s, 0, -1.0, s + 1) for s in range(3)]).evidence.density) == 0.0


def test_optimism_is_told_how_dense_rewards_are():
    memory = lived((0, 0, 2.0, 1), (1, 0, 1.0, 0))
    facts = OUTLOOK(LEARNER, memory)[1]
    assert facts.shape == (FEATURES,)
    assert float(facts[-1]) == pytest.approx(4.0 * float(memory.evidence.density))


def test_a_fact_that_optimism_was_trained_without_changes_nothing():
    few = eqx.tree_at(lambda c: c.by_fact, Curiosity(10), jnp.arange(10.0) / 50)
    wide = few.widened()
    assert wide.by_fact.shape == (FEATURES,)
    told = jnp.linspace(0.1, 1.0, FEATURES)
    some = jnp.asarray([0.0, 2.0]), jnp.asarray(1.0), jnp.asarray(90.0), jnp.asarray(3.0)
    np.testing.assert_allclose(wide(*some, told), few(*some, told[:10]), rtol=1e-6)
